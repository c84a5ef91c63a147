"""What guests do by themselves: they go on after a relocation, power off, reboot and crash."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from relocd.errors import BadState
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
