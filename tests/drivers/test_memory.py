"""The hypervisor in memory: what the contract does not say, and the faults that tests of the daemon rely on."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import pytest
from attrs import evolve
from twisted.internet.defer import Deferred

from relocd.drivers.memory import MemoryDriver, Step, forget_hosts, host_at
from relocd.drivers.memory.guest import Guest, version_of
from relocd.errors import DriverError
from relocd.model import DomainConfig, DomainState
from tests.contracts.move import Move
from tests.contracts.rigs import Host, MemoryRig
from tests.reactor import call, run

RUNNING, OUTGOING, INCOMING = DomainState.RUNNING, DomainState.OUTGOING, DomainState.INCOMING


@pytest.fixture
def rig() -> Iterator[MemoryRig]:
    rig = MemoryRig()
    yield rig
    rig.close()


@pytest.fixture
def config(rig: MemoryRig) -> DomainConfig:
    return run(rig.a.driver.create(rig.config())).config


def guest(host: Host, config: DomainConfig) -> Guest:
    return host_at(host.paths.run).domains[config.uuid].guest


def fail(host: Host, step: Step, times: int = 1) -> None:
    host_at(host.paths.run).fail(step, times)


def test_memory_and_counter_arrive_and_only_one_runs(rig: MemoryRig, config: DomainConfig) -> None:
    before = guest(rig.a, config)
    before.write(40, 1234)
    move = Move(rig.a, rig.b, config).to("finished")
    assert host_at(rig.a.paths.run).running() == host_at(rig.b.paths.run).running() == set()
    assert guest(rig.b, config).versions == before.versions
    assert before.versions[40] == 1234
    assert guest(rig.b, config).counter_ms == pytest.approx(before.counter_ms, abs=0.01)
    move.complete()
    assert host_at(rig.b.paths.run).running() == {config.uuid}


def test_a_damaged_page_is_noticed() -> None:
    page = Guest.new(1).page(3)
    assert version_of(3, page) == 1
    for wrong in (page[:-1] + b"x", Guest.new(1).page(2)):
        with pytest.raises(ValueError, match="page 3 is damaged"):
            version_of(3, wrong)


@pytest.mark.parametrize(
    ("step", "stage"), [(Step.START, "started"), (Step.STREAM, "paused"), (Step.SWITCH_OVER, "loaded")]
)
def test_a_source_that_fails(rig: MemoryRig, config: DomainConfig, step: Step, stage: str) -> None:
    fail(rig.a, step)
    move = Move(rig.a, rig.b, config)
    with pytest.raises(DriverError, match=step.value):
        move.to(stage)
    run(move.outgoing.cancel())
    run(move.incoming.discard())
    move.close()
    assert move.states() == (RUNNING, None)


def test_a_source_that_fails_after_the_switchover(rig: MemoryRig, config: DomainConfig) -> None:
    fail(rig.a, Step.FINISH)
    move = Move(rig.a, rig.b, config).to("paused")
    run(move.outgoing.switch_over())
    with pytest.raises(DriverError, match="finish"):
        run(move.outgoing.finished())
    with pytest.raises(DriverError):
        run(move.incoming.loaded())
    assert move.states() == (RUNNING, INCOMING)
    move.close()


@pytest.mark.parametrize("step", [Step.PREPARE, Step.LOAD])
def test_a_target_that_fails(rig: MemoryRig, config: DomainConfig, step: Step) -> None:
    fail(rig.b, step)
    move = Move(rig.a, rig.b, config)
    with pytest.raises(DriverError, match=step.value):
        move.to("loaded")
    run(move.outgoing.cancel())
    run(move.incoming.discard())
    move.close()
    assert move.states() == (RUNNING, None)


def test_steps_that_succeed_the_second_time(rig: MemoryRig, config: DomainConfig) -> None:
    move = Move(rig.a, rig.b, config).to("finished")
    fail(rig.b, Step.RESUME)
    fail(rig.a, Step.RELEASE)
    with pytest.raises(DriverError, match="resume"):
        run(move.incoming.resume(paused=False))
    with pytest.raises(DriverError, match="release"):
        run(move.outgoing.release())
    run(move.incoming.resume(paused=False))
    run(move.outgoing.release())
    move.close()
    assert move.states() == (None, RUNNING)


def test_cancel_and_discard_that_fail_first(rig: MemoryRig, config: DomainConfig) -> None:
    move = Move(rig.a, rig.b, config).to("finished")
    for host, step, action in (
        (rig.a, Step.CANCEL, move.outgoing.cancel),
        (rig.b, Step.DISCARD, move.incoming.discard),
    ):
        fail(host, step, times=2)
        for _ in range(2):
            with pytest.raises(DriverError, match=step.value):
                run(action())
        assert move.states()[0] in (OUTGOING, RUNNING)
        run(action())
    move.close()
    assert move.states() == (RUNNING, None)


def test_create_that_fails(rig: MemoryRig) -> None:
    fail(rig.a, Step.CREATE)
    with pytest.raises(DriverError, match="create"):
        run(rig.a.driver.create(rig.config()))
    assert call(rig.a.driver.list) == []


def test_shutdown_and_reboot(rig: MemoryRig, config: DomainConfig) -> None:
    guest(rig.a, config).counter_ms = 1e9
    run(rig.a.driver.reboot(config.uuid))
    assert guest(rig.a, config).counter_ms < 1e9
    run(rig.a.driver.shutdown(config.uuid))
    assert [(change.uuid, change.state) for change in rig.a.heard] == [(config.uuid, None)]


def test_hosts_can_be_forgotten(rig: MemoryRig, config: DomainConfig) -> None:
    forget_hosts()
    assert host_at(rig.a.paths.run).domains == {}


def test_a_transfer_that_is_cancelled_before_it_began_ends_and_closes_its_socket(
    rig: MemoryRig, config: DomainConfig
) -> None:
    async def scene() -> None:
        incoming = rig.b.driver.incoming(config)
        end = await incoming.prepare()  # the task that receives has not had its first turn yet
        await incoming.discard()
        end.setblocking(False)
        assert end.recv(1) == b""
        end.close()

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(scene())


@pytest.mark.parametrize("stage", ["paused", "finished"])
def test_who_follows_a_domain_that_is_lost_hears_why(rig: MemoryRig, stage: str) -> None:
    large = evolve(rig.config(), memory_mib=1024)  # more than the sockets hold
    config, driver = run(rig.a.driver.create(large)).config, rig.a.driver
    assert isinstance(driver, MemoryDriver)
    move = Move(rig.a, rig.b, config).hold().to("started")

    async def scene() -> None:
        following = Deferred.fromCoroutine(getattr(move.outgoing, stage)())
        driver.lose(config.uuid, "power-off of the guest")
        with pytest.raises(DriverError, match="ended while it was being relocated: power-off of the guest"):
            await following

    run(scene())
    run(move.incoming.discard())
    move.close()
