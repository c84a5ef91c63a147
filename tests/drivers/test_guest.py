"""What guests do by themselves: they go on after a relocation, power off, reboot and crash."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from relocd.errors import BadState, DriverError
from relocd.model import Action, BootFile, DomainConfig, DomainState
from tests.contracts.move import Move
from tests.contracts.rigs import QemuRig
from tests.drivers.tinyguest import CRASH, POWER_OFF, RESET, Console, write_kernel
from tests.reactor import call, run

pytestmark = [pytest.mark.qemu, pytest.mark.netns]

#: How a guest ends, and which setting says what becomes of it.
ENDS = {POWER_OFF: "on_poweroff", RESET: "on_reboot", CRASH: "on_crash"}
KEPT_AS = {POWER_OFF: DomainState.SHUTDOWN, RESET: DomainState.SHUTDOWN, CRASH: DomainState.CRASHED}


@pytest.fixture
def rig() -> Iterator[QemuRig]:
    rig = QemuRig()
    yield rig
    rig.close()


@pytest.fixture
def config(rig: QemuRig, tmp_path: Path) -> DomainConfig:
    return evolve(rig.config(), kernel=BootFile(write_kernel(tmp_path)))


def boot(rig: QemuRig, config: DomainConfig) -> tuple[DomainConfig, Console]:
    """Start the domain and wait for its guest; the console must be there before the guest says a word."""
    fixed = run(rig.a.driver.create(config, paused=True)).config
    rig.b.copy_boot_files(rig.a)
    console = Console(call(rig.a.driver.console_path, fixed.uuid))
    run(rig.a.driver.unpause(fixed.uuid))
    console.wait_ready()
    return fixed, console


def ending(config: DomainConfig, end: bytes, action: Action) -> DomainConfig:
    """The domain with ``action`` for this way to end."""
    wanted: dict[str, Any] = {ENDS[end]: action}
    return evolve(config, **wanted)


def state(rig: QemuRig, config: DomainConfig) -> DomainState | None:
    status = call(rig.a.driver.get, config.uuid)
    return status.state if status else None


def test_the_same_guest_goes_on_after_a_relocation(rig: QemuRig, config: DomainConfig) -> None:
    config, console = boot(rig, config)
    assert [console.ask() for _ in range(3)] == [1, 2, 3]
    console.close()
    Move(rig.a, rig.b, config).complete()
    console = Console(call(rig.b.driver.console_path, config.uuid))
    assert [console.ask() for _ in range(3)] == [4, 5, 6]
    console.close()
    assert (rig.a.paths.log / f"console-{config.uuid}.log").exists() is False
    # QEMU writes the log after it has spoken, so the last words may still be missing.
    assert (rig.b.paths.log / f"console-{config.uuid}.log").read_bytes().startswith(b"\x04")


def test_the_same_guest_goes_on_after_a_cancelled_relocation(rig: QemuRig, config: DomainConfig) -> None:
    config, console = boot(rig, config)
    assert console.ask() == 1
    move = Move(rig.a, rig.b, config).to("finished")
    run(move.outgoing.cancel())
    run(move.incoming.discard())
    move.close()
    assert console.ask() == 2
    console.close()


@pytest.mark.parametrize("end", ENDS)
def test_destroyed_when_it_ends(rig: QemuRig, config: DomainConfig, end: bytes) -> None:
    config, console = boot(rig, ending(config, end, Action.DESTROY))
    console.order(end)
    rig.a.wait_heard(1)
    (change,) = rig.a.heard
    assert (change.uuid, change.state) == (config.uuid, None)
    assert change.reason.endswith("of the guest")
    assert state(rig, config) is None
    assert [left for left in rig.leftovers(rig.a) if "/log/" not in left] == []
    console.close()


@pytest.mark.parametrize("end", ENDS)
def test_restarted_when_it_ends(rig: QemuRig, config: DomainConfig, end: bytes) -> None:
    config, console = boot(rig, ending(config, end, Action.RESTART))
    assert console.ask() == 1
    console.order(end)
    console.wait_ready()
    assert console.ask() == 1
    assert state(rig, config) is DomainState.RUNNING
    console.close()


@pytest.mark.parametrize("end", ENDS)
def test_preserved_when_it_ends(rig: QemuRig, config: DomainConfig, end: bytes) -> None:
    config, console = boot(rig, ending(config, end, Action.PRESERVE))
    console.order(end)
    rig.a.wait_heard(1)
    assert [(change.uuid, change.state) for change in rig.a.heard] == [(config.uuid, KEPT_AS[end])]
    rig.a.restart()
    assert state(rig, config) in (KEPT_AS[end], DomainState.SHUTDOWN)
    with pytest.raises(BadState):
        run(rig.a.driver.unpause(config.uuid))
    with pytest.raises(BadState):
        run(call(rig.a.driver.outgoing, config.uuid).start(live=True, downtime_limit_ms=20))
    run(rig.a.driver.destroy(config.uuid))
    assert rig.leftovers(rig.a) == []
    console.close()


@pytest.mark.parametrize("action", Action)
def test_a_power_off_while_no_daemon_runs_is_found_at_the_next_start(
    rig: QemuRig, config: DomainConfig, action: Action
) -> None:
    config, console = boot(rig, evolve(config, on_poweroff=action))
    run(rig.a.driver.stop())
    console.order(POWER_OFF)
    rig.a.restart()
    rig.a.wait_heard(1)
    expected = {
        Action.DESTROY: None,
        Action.RESTART: DomainState.RUNNING,
        Action.PRESERVE: DomainState.SHUTDOWN,
    }
    assert state(rig, config) is expected[action]
    if action is Action.DESTROY:
        assert [(change.uuid, change.state) for change in rig.a.heard] == [(config.uuid, None)]
        assert [left for left in rig.leftovers(rig.a) if "/log/" not in left] == []
    console.close()


@pytest.mark.parametrize("action", Action)
@pytest.mark.parametrize("end", ENDS)
def test_one_that_ends_on_its_way_stays_and_has_done_to_it_what_it_wants(
    rig: QemuRig, config: DomainConfig, end: bytes, action: Action
) -> None:
    if (end, action) == (RESET, Action.RESTART):
        return  # QEMU restarts it and goes on: the next test
    config, console = boot(rig, ending(config, end, action))
    move = Move(rig.a, rig.b, config).hold().to("started")
    console.order(end)
    with pytest.raises(DriverError, match=r"ended while it was being relocated: .* of the guest"):
        run(move.outgoing.paused())
    with pytest.raises(DriverError):
        run(move.outgoing.finished())
    run(move.outgoing.cancel())
    run(move.incoming.discard())
    move.close()
    if action is Action.RESTART:
        console.wait_ready()
        assert console.ask() == 1
    rig.a.wait_heard(1)
    expected = {
        Action.DESTROY: None,
        Action.RESTART: DomainState.RUNNING,
        Action.PRESERVE: KEPT_AS[end],
    }
    assert move.states() == (expected[action], None)
    assert [(change.uuid, change.state) for change in rig.a.heard] == [(config.uuid, expected[action])]
    console.close()


def test_one_that_reboots_on_its_way_arrives_rebooted(rig: QemuRig, config: DomainConfig) -> None:
    config, console = boot(rig, config)
    assert console.ask() == 1
    move = Move(rig.a, rig.b, config).hold().to("started")
    console.order(RESET)
    console.wait_ready()
    console.close()
    move.go_on()
    move.complete()
    assert rig.a.heard == []
    console = Console(call(rig.b.driver.console_path, config.uuid))
    assert console.ask() == 1
    console.close()


def test_what_ended_on_its_way_while_no_daemon_ran_is_found_when_it_is_taken_back(
    rig: QemuRig, config: DomainConfig
) -> None:
    config, console = boot(rig, evolve(config, on_reboot=Action.PRESERVE))
    move = Move(rig.a, rig.b, config).hold().to("started")
    run(rig.a.driver.stop())
    console.order(RESET)
    move.restart_source()
    with pytest.raises(DriverError, match="ended while it was being relocated"):
        run(move.outgoing.paused())
    assert rig.a.heard == []
    run(move.outgoing.cancel())
    run(move.incoming.discard())
    move.close()
    assert move.states() == (DomainState.SHUTDOWN, None)
    console.close()


def test_one_that_ends_as_soon_as_it_is_resumed_has_arrived(rig: QemuRig, config: DomainConfig) -> None:
    config, console = boot(rig, config)
    console.close()
    move = Move(rig.a, rig.b, config).to("finished")
    console = Console(call(rig.b.driver.console_path, config.uuid))
    console.order(POWER_OFF)  # waits in the serial port until the guest runs
    run(move.incoming.resume(paused=False))
    run(move.outgoing.release())
    move.close()
    rig.b.wait_heard(1)
    assert [(change.uuid, change.reason) for change in rig.b.heard] == [
        (config.uuid, "power-off of the guest")
    ]
    assert move.states() == (None, None)
    assert [left for left in rig.leftovers(rig.b) if "/log/" not in left] == []
    console.close()


def test_reboot_asks_the_guest_with_ctrl_alt_del(rig: QemuRig, config: DomainConfig) -> None:
    config, console = boot(rig, config)
    assert console.ask() == 1
    run(rig.a.driver.reboot(config.uuid))
    console.wait_ready()
    assert console.ask() == 1
    console.close()


def test_shutdown_asks_and_a_guest_that_does_not_listen_goes_on(rig: QemuRig, config: DomainConfig) -> None:
    config, console = boot(rig, config)
    run(rig.a.driver.shutdown(config.uuid))
    assert console.ask() == 1
    assert state(rig, config) is DomainState.RUNNING
    console.close()
