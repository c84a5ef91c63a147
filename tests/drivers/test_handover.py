"""What only one host may do at a time: be reached by the network, and hold the disks."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from attrs import evolve

from relocd.config import Config
from relocd.drivers.base import DriverPaths
from relocd.drivers.qemu import driver as driver_module
from relocd.drivers.qemu.driver import QemuDriver
from relocd.errors import DriverError
from relocd.model import DomainConfig, DomainState
from tests.contracts.move import Move
from tests.contracts.rigs import BRIDGE, Host, QemuRig
from tests.reactor import call, run

pytestmark = [pytest.mark.qemu, pytest.mark.netns]

ETH_P_ALL, ETH_P_RARP = 0x0003, 0x8035  # linux/if_ether.h


@pytest.fixture
def rig() -> Iterator[QemuRig]:
    rig = QemuRig()
    yield rig
    rig.close()


@pytest.fixture
def config(rig: QemuRig) -> DomainConfig:
    return run(rig.a.driver.create(rig.config())).config


def listen_on_bridge() -> socket.socket:
    """All frames that reach the bridge; the socket belongs to the network of the thread that opens it."""
    listener = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    listener.bind((BRIDGE, 0))
    listener.settimeout(20)
    return listener


def announced(listener: socket.socket) -> str:
    """Wait for an announcement and return whose it is."""
    while True:
        frame = listener.recv(2048)
        if int.from_bytes(frame[12:14], "big") == ETH_P_RARP:
            return frame[6:12].hex(":")


def holds_disk(host: Host, rig: QemuRig, config: DomainConfig) -> bool:
    """Nobody else can open the domain's disk."""
    other = evolve(config, uuid=uuid4(), vifs=())
    try:
        run(host.driver.create(other, paused=True))
    except DriverError as error:
        return 'Failed to get "write" lock' in str(error)
    run(host.driver.destroy(other.uuid))
    return False


def test_an_arrival_is_not_connected_before_it_is_resumed(rig: QemuRig, config: DomainConfig) -> None:
    assert rig.up(rig.a) == [True]
    move = Move(rig.a, rig.b, config).to("finished")
    assert rig.up(rig.b) == [False]
    move.complete()
    assert (rig.up(rig.a), rig.up(rig.b)) == ([], [True])


def test_a_resumed_arrival_announces_itself_and_not_before(rig: QemuRig, config: DomainConfig) -> None:
    move = Move(rig.a, rig.b, config).to("finished")
    run(move.outgoing.release())
    listener = call(listen_on_bridge)
    listener.setblocking(False)
    with pytest.raises(BlockingIOError):
        announced(listener)
    listener.settimeout(20)
    run(move.incoming.resume(paused=False))
    assert announced(listener) == config.vifs[0].mac
    listener.close()
    move.close()


def test_one_that_arrived_paused_announces_itself_when_it_is_unpaused(
    rig: QemuRig, config: DomainConfig
) -> None:
    run(rig.a.driver.pause(config.uuid))
    Move(rig.a, rig.b, config).complete(paused=True)
    listener = call(listen_on_bridge)
    run(rig.b.driver.unpause(config.uuid))
    assert announced(listener) == config.vifs[0].mac
    listener.close()


@pytest.mark.parametrize("paused", [False, True])
def test_the_disk_is_held_by_whoever_owns_the_domain(
    rig: QemuRig, config: DomainConfig, paused: bool
) -> None:
    if paused:
        run(rig.a.driver.pause(config.uuid))
    move = Move(rig.a, rig.b, config).to("finished")
    run(move.outgoing.cancel())
    assert holds_disk(rig.b, rig, config)
    run(move.incoming.discard())
    move.close()
    Move(rig.a, rig.b, config).complete(paused=paused)
    assert holds_disk(rig.a, rig, config)
    run(rig.b.driver.destroy(config.uuid))
    assert not holds_disk(rig.a, rig, config)


def test_a_console_that_talks_too_much_is_bounded(
    rig: QemuRig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver_module, "_LOG_CHECK_S", 0.02)
    paths = DriverPaths(
        state=tmp_path / "state", run=rig.a.paths.run, boot=tmp_path / "boot", log=tmp_path / "log"
    )
    driver = call(QemuDriver, Config(console_limit_kib=1), paths)
    run(driver.start())
    uuid = run(driver.create(evolve(rig.config(), vifs=()))).uuid
    log = paths.log / f"console-{uuid}.log"
    with log.open("ab") as writer:
        writer.write(b"x" * 1025)
    while not log.with_name(log.name + ".1").exists() or log.stat().st_size:
        time.sleep(0.01)
    run(driver.destroy(uuid))
    run(driver.stop())


def test_a_guest_that_is_stopped_by_somebody_else_is_told(rig: QemuRig, config: DomainConfig) -> None:
    """As QEMU itself stops one whose disk is full; here somebody else's command does."""
    driver = rig.a.driver
    assert isinstance(driver, QemuDriver)
    monitor = driver._domains[config.uuid].monitor
    run(monitor.execute("stop"))
    run(monitor.execute("cont"))
    assert [(change.uuid, change.state) for change in rig.a.heard] == [
        (config.uuid, DomainState.PAUSED),
        (config.uuid, DomainState.RUNNING),
    ]
