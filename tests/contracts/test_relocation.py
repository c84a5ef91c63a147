"""The contract of a driver, second part: a domain leaves one host and arrives at another, or does not."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from attrs import evolve

from relocd.errors import BadState, DriverError
from relocd.model import DomainConfig, DomainState
from tests.contracts.move import STAGES, Move
from tests.contracts.rigs import Rig
from tests.reactor import call, run

GONE = None
RUNNING, PAUSED = DomainState.RUNNING, DomainState.PAUSED
OUTGOING, INCOMING = DomainState.OUTGOING, DomainState.INCOMING


def create(rig: Rig, *, paused: bool = False) -> DomainConfig:
    return run(rig.a.driver.create(rig.config(), paused=paused)).config


def test_live(rig: Rig) -> None:
    move = Move(rig.a, rig.b, create(rig))
    assert move.to("prepared").states() == (RUNNING, INCOMING)
    assert move.to("paused").states() == (OUTGOING, INCOMING)
    assert move.to("finished").states() == (OUTGOING, INCOMING)
    move.complete()
    assert move.states() == (GONE, RUNNING)
    assert rig.leftovers(rig.a) == []
    assert rig.a.heard == rig.b.heard == []


def test_not_live_pauses_first(rig: Rig) -> None:
    move = Move(rig.a, rig.b, create(rig), live=False)
    assert move.to("started").states() == (OUTGOING, INCOMING)
    move.complete()
    assert move.states() == (GONE, RUNNING)


@pytest.mark.parametrize("live", [True, False])
def test_a_paused_domain_arrives_paused(rig: Rig, live: bool) -> None:
    config = create(rig, paused=True)
    move = Move(rig.a, rig.b, config, live=live)
    assert call(lambda: move.outgoing.was_paused)
    move.complete(paused=True)
    assert move.states() == (GONE, PAUSED)
    run(rig.b.driver.unpause(config.uuid))
    assert move.states() == (GONE, RUNNING)


def test_there_and_back(rig: Rig) -> None:
    config = create(rig)
    Move(rig.a, rig.b, config).complete()
    back = Move(rig.b, rig.a, config).complete()
    assert back.states() == (GONE, RUNNING)
    assert rig.leftovers(rig.b) == []


def test_a_domain_that_arrived_paused_goes_on_paused(rig: Rig) -> None:
    config = create(rig, paused=True)
    Move(rig.a, rig.b, config).complete(paused=True)
    assert Move(rig.b, rig.a, config).complete(paused=True).states() == (GONE, PAUSED)


def test_progress_is_counted(rig: Rig) -> None:
    move = Move(rig.a, rig.b, create(rig)).to("finished")
    progress = run(move.outgoing.progress())
    assert progress.round >= 1
    assert progress.total_bytes >= 1
    assert progress.remaining_bytes == 0
    move.complete()


def test_adjusted_while_it_streams_it_arrives_all_the_same(rig: Rig) -> None:
    move = Move(rig.a, rig.b, create(rig), may_throttle=True)
    for stage in ("started", "paused", "finished"):
        move.to(stage)
        for throttle_percent in (0, 20, 99):
            run(move.outgoing.adjust(downtime_limit_ms=200, throttle_percent=throttle_percent))
    assert move.complete().states() == (GONE, RUNNING)


def test_what_was_adjusted_does_not_outlive_the_relocation(rig: Rig) -> None:
    move = Move(rig.a, rig.b, create(rig), may_throttle=True).hold().to("started")
    run(move.outgoing.adjust(downtime_limit_ms=5000, throttle_percent=99))
    run(move.outgoing.cancel())
    run(move.incoming.discard())
    move.close()
    again = Move(rig.a, rig.b, move.config)
    run(again.to("paused").outgoing.adjust(downtime_limit_ms=30))
    assert again.complete().states() == (GONE, RUNNING)


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("paused", [False, True])
def test_cancelled_at_any_stage_the_domain_is_as_it_was(rig: Rig, stage: str, paused: bool) -> None:
    before = PAUSED if paused else RUNNING
    move = Move(rig.a, rig.b, create(rig, paused=paused)).to(stage)
    for _ in range(2):
        run(move.outgoing.cancel())
        assert move.states()[0] is before
    for _ in range(2):
        run(move.incoming.discard())
    move.close()
    assert move.states() == (before, GONE)
    assert rig.leftovers(rig.b) == []
    again = Move(rig.a, rig.b, move.config).complete(paused=paused)
    assert again.states() == (GONE, before)


@pytest.mark.parametrize("stage", STAGES)
def test_not_live_and_cancelled_the_domain_runs_again(rig: Rig, stage: str) -> None:
    move = Move(rig.a, rig.b, create(rig), live=False).to(stage)
    run(move.outgoing.cancel())
    run(move.incoming.discard())
    move.close()
    assert move.states() == (RUNNING, GONE)


@pytest.mark.parametrize("stage", ["started", "paused"])
def test_a_stream_that_is_cut_leaves_the_domain_on_the_source(rig: Rig, stage: str) -> None:
    move = Move(rig.a, rig.b, create(rig)).to(stage)
    move.cut()
    with pytest.raises(DriverError):
        run(to_the_end(move))
    with pytest.raises(DriverError):
        run(move.incoming.loaded())
    run(move.outgoing.cancel())
    run(move.incoming.discard())
    move.close()
    assert move.states() == (RUNNING, GONE)
    assert rig.leftovers(rig.b) == []


def test_a_stream_that_cannot_be_loaded_leaves_the_domain_on_the_source(rig: Rig) -> None:
    move = Move(rig.a, rig.b, create(rig)).to("prepared")
    (stream,) = move.sockets
    stream.sendall(b"this is no guest" * 100)
    with pytest.raises(DriverError, match=r"loaded|broke off"):
        run(move.incoming.loaded())
    run(move.incoming.discard())
    move.close()
    assert move.states() == (RUNNING, GONE)
    assert rig.leftovers(rig.b) == []


def test_boot_files_must_be_in_the_store_of_the_target(rig: Rig, tmp_path: Path) -> None:
    config = evolve(
        rig.config(), kernel=rig.boot_file(tmp_path, "kernel"), ramdisk=rig.boot_file(tmp_path, "ramdisk")
    )
    config = run(rig.a.driver.create(config)).config
    for file in config.boot_files:
        Path(file.path).unlink()
    move = Move(rig.a, rig.b, config)
    with pytest.raises(DriverError, match="not in the boot store"):
        move.to("prepared")
    assert rig.leftovers(rig.b) == []
    rig.b.copy_boot_files(rig.a)
    assert Move(rig.a, rig.b, config).complete().states() == (GONE, RUNNING)


def test_nobody_else_decides_about_a_domain_under_way(rig: Rig) -> None:
    move = Move(rig.a, rig.b, create(rig)).to("finished")
    uuid = move.config.uuid
    for host in (rig.a, rig.b):
        driver = host.driver
        for action in (driver.pause, driver.unpause, driver.destroy, driver.shutdown, driver.reboot):
            with pytest.raises(BadState):
                run(action(uuid))
    with pytest.raises(BadState):
        run(call(rig.a.driver.outgoing, uuid).start(live=True, downtime_limit_ms=20))
    assert move.states() == (OUTGOING, INCOMING)
    move.complete()


def test_what_is_not_loaded_does_not_run_and_what_is_owned_is_not_discarded(rig: Rig) -> None:
    move = Move(rig.a, rig.b, create(rig)).to("started")
    with pytest.raises(BadState, match="not loaded"):
        run(move.incoming.resume(paused=False))
    move.complete()
    with pytest.raises(BadState, match="not discarded"):
        run(move.incoming.discard())
    with pytest.raises(BadState, match="not on its way"):
        run(call(rig.b.driver.outgoing, move.config.uuid).release())
    assert move.states() == (GONE, RUNNING)


def test_the_guests_memory_is_given_away_once_and_only_to_write(rig: Rig) -> None:
    """Or not at all: then the stream is all that a driver needs."""
    move = Move(rig.a, rig.b, create(rig)).to("prepared")
    memory = call(move.incoming.memory)
    assert call(move.incoming.memory) is None
    if memory is not None:
        assert memory.size_bytes >= move.config.memory_mib << 20
        last = memory.begin + memory.size_bytes - 1
        assert (
            os.pwrite(memory.descriptor, b"\0", memory.begin)
            == os.pwrite(memory.descriptor, b"\0", last)
            == 1
        )
        with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
            os.pread(memory.descriptor, 1, memory.begin)
        os.close(memory.descriptor)
    move.complete()
    assert move.states() == (GONE, RUNNING)


def test_resume_and_release_may_be_asked_for_again(rig: Rig) -> None:
    move = Move(rig.a, rig.b, create(rig)).complete()
    run(move.incoming.resume(paused=False))
    run(move.outgoing.release())
    run(move.outgoing.cancel())
    assert move.states() == (GONE, RUNNING)


def test_two_arrivals_of_one_domain_are_refused(rig: Rig) -> None:
    move = Move(rig.a, rig.b, create(rig)).to("prepared")
    with pytest.raises(BadState, match="here already"):
        run(call(rig.b.driver.incoming, move.config).prepare())
    move.complete()
    assert move.states() == (GONE, RUNNING)


@pytest.mark.parametrize("stage", ["started", "paused"])
def test_a_source_that_dies_is_gone_and_says_so(rig: Rig, stage: str) -> None:
    move = Move(rig.a, rig.b, create(rig)).hold().to("started")
    if stage == "paused":
        move.go_on()
        move.to(stage)
    rig.kill(rig.a, move.config.uuid)
    with pytest.raises(DriverError, match=r"ended while it was being relocated: .*killed|the domain is gone"):
        run(to_the_end(move))
    move.go_on()
    with pytest.raises(DriverError):
        run(move.incoming.loaded())
    rig.a.wait_heard(1)
    run(move.outgoing.cancel())
    run(move.incoming.discard())
    move.close()
    assert move.states() == (GONE, GONE)


def test_a_domain_that_ends_after_its_resume_has_arrived(rig: Rig) -> None:
    move = Move(rig.a, rig.b, create(rig)).to("finished")
    run(move.incoming.resume(paused=False))
    rig.kill(rig.b, move.config.uuid)
    rig.b.wait_heard(1)
    run(move.outgoing.release())
    move.close()
    assert move.states() == (GONE, GONE)
    assert rig.leftovers(rig.a) == []


def test_a_target_that_dies_after_loading_cannot_be_resumed(rig: Rig) -> None:
    move = Move(rig.a, rig.b, create(rig)).to("finished")
    rig.kill(rig.b, move.config.uuid)
    rig.b.wait_heard(1)
    with pytest.raises(DriverError):
        run(move.incoming.resume(paused=False))
    run(move.incoming.discard())
    run(move.outgoing.cancel())
    move.close()
    assert move.states() == (RUNNING, GONE)
    assert rig.leftovers(rig.b) == []


async def to_the_end(move: Move) -> None:
    await move.outgoing.paused()
    await move.outgoing.switch_over()
    await move.outgoing.finished()
