"""The contract where a hypervisor spreads its memory over channels: the same things happen, whatever fails."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from relocd.drivers.qemu.streams import DIRECTORY_FD
from relocd.errors import DriverError
from relocd.model import DomainConfig, DomainState
from tests.contracts.move import STAGES, Move
from tests.contracts.rigs import QemuRig
from tests.contracts.test_relocation import to_the_end
from tests.descriptors import closed_again, open_descriptors
from tests.reactor import call, run

pytestmark = [pytest.mark.qemu, pytest.mark.netns]

CHANNELS = 3
GONE = None
RUNNING, PAUSED = DomainState.RUNNING, DomainState.PAUSED


@pytest.fixture
def rig() -> Iterator[QemuRig]:
    rig = QemuRig()
    yield rig
    rig.close()


def create(rig: QemuRig, *, paused: bool = False) -> DomainConfig:
    return run(rig.a.driver.create(rig.config(), paused=paused)).config


@pytest.mark.parametrize("live", [True, False])
def test_there_and_back(rig: QemuRig, live: bool) -> None:
    config = create(rig)
    assert call(rig.a.driver.facts).channels_max >= CHANNELS
    for source, target in ((rig.a, rig.b), (rig.b, rig.a)):
        move = Move(source, target, config, live=live, channels=CHANNELS)
        assert call(lambda move=move: move.outgoing.channels_max) >= CHANNELS
        assert move.complete().states() == (GONE, RUNNING)
        assert rig.leftovers(source) == []
    assert rig.a.heard == rig.b.heard == []


def test_a_paused_domain_arrives_paused(rig: QemuRig) -> None:
    config = create(rig, paused=True)
    assert Move(rig.a, rig.b, config, channels=CHANNELS).complete(paused=True).states() == (GONE, PAUSED)
    run(rig.b.driver.unpause(config.uuid))


def test_with_channels_without_and_with_them_again(rig: QemuRig) -> None:
    config = create(rig)
    Move(rig.a, rig.b, config, channels=CHANNELS).complete()
    Move(rig.b, rig.a, config).complete()
    assert Move(rig.a, rig.b, config, channels=1).complete().states() == (GONE, RUNNING)


@pytest.mark.parametrize("stage", STAGES)
def test_cancelled_at_any_stage_it_runs_on_and_moves_later(rig: QemuRig, stage: str) -> None:
    config = create(rig)
    move = Move(rig.a, rig.b, config, channels=CHANNELS).to(stage)
    run(move.outgoing.cancel())
    move.close()
    run(move.incoming.discard())
    assert move.states() == (RUNNING, GONE)
    assert rig.leftovers(rig.b) == []
    assert Move(rig.a, rig.b, config, channels=CHANNELS).complete().states() == (GONE, RUNNING)


@pytest.mark.parametrize("stage", ["started", "paused"])
@pytest.mark.parametrize("restarted", [False, True])
def test_cut_off_it_runs_on_at_the_source(rig: QemuRig, stage: str, restarted: bool) -> None:
    config = create(rig)
    move = Move(rig.a, rig.b, config, channels=CHANNELS).to(stage)
    move.cut()
    if restarted:
        move.restart_source()
    with pytest.raises(DriverError):
        run(to_the_end(move))
    run(move.outgoing.cancel())
    run(move.incoming.discard())
    move.close()
    assert move.states() == (RUNNING, GONE)
    assert Move(rig.a, rig.b, config, channels=CHANNELS).complete().states() == (GONE, RUNNING)


def test_discarded_before_anything_came_nothing_is_left(rig: QemuRig) -> None:
    move = Move(rig.a, rig.b, create(rig), channels=CHANNELS).to("prepared")
    move.close()
    run(move.incoming.discard())
    assert move.states() == (RUNNING, GONE)
    assert rig.leftovers(rig.b) == []


def test_what_nobody_asked_for_is_closed_with_the_rest(rig: QemuRig) -> None:
    config = create(rig)
    incoming = call(rig.b.driver.incoming, config)
    before = open_descriptors()
    run(incoming.prepare(channels=CHANNELS)).close()
    run(incoming.discard())
    assert call(incoming.channels) == []
    assert closed_again(before)


def test_the_source_s_daemon_is_restarted_in_the_middle(rig: QemuRig) -> None:
    move = Move(rig.a, rig.b, create(rig), channels=CHANNELS).to("paused")
    move.restart_source()
    run(move.outgoing.cancel())
    move.close()
    run(move.incoming.discard())
    assert move.states() == (RUNNING, GONE)


def test_a_qemu_that_does_not_hold_the_directory_leaves_without_channels(rig: QemuRig) -> None:
    config = create(rig)
    outgoing = call(rig.a.driver.outgoing, config.uuid)
    place = directory_of(rig)
    hidden = place.rename(place.with_name("elsewhere"))
    place.mkdir()
    assert call(lambda: outgoing.channels_max) == 0
    place.rmdir()
    hidden.rename(place)
    assert call(lambda: outgoing.channels_max) >= CHANNELS


def directory_of(rig: QemuRig) -> Path:
    """Where the QEMU on host "a" finds its channels' sockets."""
    (process,) = rig.processes(rig.a)
    return Path(f"/proc/{process.pid}/fd/{DIRECTORY_FD}").readlink()


def test_nobody_else_can_reach_the_sockets(rig: QemuRig) -> None:
    """And what relocd makes there, QEMU's user can neither remove nor replace."""
    create(rig)
    place = directory_of(rig)
    assert place.parent.stat().st_mode & 0o077 == 0
    assert place.stat().st_mode & 0o7777 == 0o1777


def test_a_place_that_is_taken_is_an_error_and_the_domain_runs_on(rig: QemuRig) -> None:
    config = create(rig)
    (directory_of(rig) / "out").mkdir()
    move = Move(rig.a, rig.b, config, channels=CHANNELS).to("prepared")
    with pytest.raises(DriverError, match="channels cannot be opened at"):
        move.to("started")
    move.close()
    run(move.incoming.discard())
    assert move.states() == (RUNNING, GONE)
