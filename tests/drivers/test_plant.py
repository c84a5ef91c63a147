"""What a domain uses on its host: removed when building fails, found again or swept after a crash."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from attrs import evolve
from twisted.internet.defer import CancelledError, Deferred

from relocd.config import Config
from relocd.drivers.aio import awaited
from relocd.drivers.base import DriverPaths
from relocd.drivers.qemu import driver as driver_module
from relocd.drivers.qemu import outgoing as outgoing_module
from relocd.drivers.qemu import plant as plant_module
from relocd.drivers.qemu.cmdline import DiskAccess
from relocd.drivers.qemu.disks import examine, opened_elsewhere
from relocd.drivers.qemu.driver import QemuDriver
from relocd.drivers.qemu.store import Store
from relocd.errors import DriverError
from relocd.model import Disk, DomainState, Vif
from relocd.net.names import instance_tag, tap_prefix
from tests.contracts.move import Move
from tests.contracts.rigs import BRIDGE, QemuRig
from tests.disk import loop_device
from tests.qcow2 import write_qcow2
from tests.reactor import call, run

pytestmark = [pytest.mark.qemu, pytest.mark.netns]


@pytest.fixture
def rig() -> Iterator[QemuRig]:
    rig = QemuRig()
    yield rig
    rig.close()


def test_nothing_is_left_of_a_domain_whose_bridge_is_missing(rig: QemuRig) -> None:
    vifs = (Vif("00:16:3e:00:00:01", BRIDGE), Vif("00:16:3e:00:00:02", "nobr"))
    with pytest.raises(DriverError, match="no bridge 'nobr'"):
        run(rig.a.driver.create(evolve(rig.config(), vifs=vifs)))
    assert rig.leftovers(rig.a) == []


@pytest.mark.parametrize(
    ("disk", "message"),
    [
        (Disk("/none.img", "xvda"), "cannot open disk /none.img"),
        (Disk("/dev/null", "xvda"), "neither a file nor a block device"),
    ],
)
def test_nothing_is_left_of_a_domain_whose_disk_cannot_be(rig: QemuRig, disk: Disk, message: str) -> None:
    with pytest.raises(DriverError, match=message):
        run(rig.a.driver.create(evolve(rig.config(), disks=(disk,))))
    assert rig.leftovers(rig.a) == []


def test_qemus_own_reason_is_told_when_it_does_not_start(rig: QemuRig) -> None:
    config = rig.config()
    (disk,) = config.disks
    write_qcow2(Path(disk.path), cluster_bits=3)
    with pytest.raises(DriverError, match=r"QEMU did not start: .*Unsupported cluster size"):
        run(rig.a.driver.create(evolve(config, disks=(evolve(disk, format="qcow2"),))))
    assert [left for left in rig.leftovers(rig.a) if "/log/" not in left] == []


def test_an_image_is_opened_with_what_it_rests_on_and_nothing_else(rig: QemuRig, tmp_path: Path) -> None:
    """Also if it is changed to rest on something else between the look at it and QEMU's own."""
    base = write_qcow2(tmp_path / "base.qcow2")
    top = write_qcow2(tmp_path / "top.qcow2", backing=str(base), backing_format="qcow2")
    config = evolve(rig.config(), disks=(Disk(str(top), "xvda", "qcow2"),))
    run(rig.a.driver.create(config, paused=True))
    (process,) = rig.processes(rig.a)
    assert {str(base), str(top)} <= {file.path for file in process.open_files()}
    ours = [str(rig.a.root)]
    assert list(opened_elsewhere(process.pid, config.disks, (str(tmp_path),), ours)) == []
    assert set(opened_elsewhere(process.pid, config.disks, ("/srv",), ours)) == {str(base), str(top)}


def test_a_name_that_an_image_gets_meanwhile_is_not_followed(
    rig: QemuRig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    top = write_qcow2(tmp_path / "top.qcow2")
    secret = tmp_path / "secret"
    secret.write_bytes(b"x" * 4096)

    def exchange(disk: Disk, roots: tuple[str, ...]) -> DiskAccess:
        found = examine(disk, roots)
        write_qcow2(top, backing=str(secret), backing_format="raw")
        return found

    monkeypatch.setattr(plant_module, "examine", exchange)
    run(rig.a.driver.create(evolve(rig.config(), disks=(Disk(str(top), "xvda", "qcow2"),)), paused=True))
    (process,) = rig.processes(rig.a)
    opened = {file.path for file in process.open_files()}
    assert str(top) in opened
    assert str(secret) not in opened


@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_an_arrival_whose_disk_leads_elsewhere_is_not_built(
    rig: QemuRig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    inside, secret = tmp_path / "srv", tmp_path / "secret.img"
    inside.mkdir()
    for path in (inside / "disk.img", secret):
        path.write_bytes(bytes(1 << 16))
    config = evolve(rig.config(), disks=(Disk(str(inside / "disk.img"), "xvda"),))
    config = run(rig.a.driver.create(config)).config
    run(rig.a.driver.destroy(config.uuid))

    def lead_astray() -> None:
        (inside / "disk.img").unlink()
        (inside / "disk.img").symlink_to(secret)

    def exchange(disk: Disk, roots: tuple[str, ...]) -> DiskAccess:
        found = examine(disk, roots)
        lead_astray()
        return found

    if when == "before":
        lead_astray()
    else:
        monkeypatch.setattr(plant_module, "examine", exchange)
    words = "lies outside of" if when == "before" else f"leads to {secret}"
    with pytest.raises(DriverError, match=words):
        run(call(rig.b.driver.incoming, config).prepare((str(inside),)))
    assert rig.leftovers(rig.b) == []


def test_an_arrival_opens_a_device_by_the_name_that_is_allowed(rig: QemuRig) -> None:
    """What it leads to, another place in /dev, is not."""
    with loop_device() as device, tempfile.TemporaryDirectory(dir="/dev", prefix="relocd-vg-") as volumes:
        disk = Path(volumes) / "web"
        disk.symlink_to(device)
        config = evolve(rig.config(), disks=(Disk(str(disk), "xvda"),))
        config = run(rig.a.driver.create(config)).config
        run(rig.a.driver.destroy(config.uuid))
        incoming = call(rig.b.driver.incoming, config)
        with run(incoming.prepare((volumes,))):
            (process,) = rig.processes(rig.b)
            opened = [str(entry.readlink()) for entry in Path(f"/proc/{process.pid}/fd").iterdir()]
            assert device in opened
            run(incoming.discard())
        with pytest.raises(DriverError, match="lies outside of"):
            run(call(rig.b.driver.incoming, config).prepare(("/dev/mapper",)))


def test_a_disk_in_use_is_not_shared(rig: QemuRig) -> None:
    config = run(rig.a.driver.create(rig.config())).config
    with pytest.raises(DriverError, match='Failed to get "write" lock'):
        run(rig.b.driver.create(evolve(config, uuid=uuid4())))


def test_what_is_not_fixed_does_not_come_in(rig: QemuRig) -> None:
    with pytest.raises(DriverError, match="must be fixed"):
        run(call(rig.b.driver.incoming, rig.config()).prepare())
    config = run(rig.a.driver.create(rig.config())).config
    with pytest.raises(DriverError, match="CPU model 'host'"):
        run(call(rig.b.driver.incoming, evolve(config, cpu="host")).prepare())
    assert rig.leftovers(rig.b) == []


def test_a_start_that_the_daemon_did_not_see_the_end_of(rig: QemuRig) -> None:
    """The record was written before QEMU was started, and the daemon died before it wrote down the process."""
    before = run(rig.a.driver.create(rig.config(), paused=True))
    run(rig.a.driver.stop())
    store = Store(rig.a.paths.state)
    (record,) = store.load()
    store.save(evolve(record, process=None))
    rig.a.restart()
    after = call(rig.a.driver.get, before.uuid)
    assert after is not None
    assert (after.id, after.state) == (before.id, DomainState.PAUSED)


def test_what_a_crash_left_is_swept_and_told_and_what_is_not_ours_stays(rig: QemuRig) -> None:
    lost = run(rig.a.driver.create(rig.config())).config
    kept = run(rig.a.driver.create(rig.config())).config
    theirs = run(rig.b.driver.create(rig.config())).config
    status = call(rig.a.driver.get, lost.uuid)
    run(rig.a.driver.stop())
    (record,) = [record for record in Store(rig.a.paths.state).load() if record.uuid == lost.uuid]
    assert status is not None
    assert record.process is not None
    os.kill(record.process.pid, signal.SIGKILL)
    rig.add_tap(tap_prefix(instance_tag(str(rig.a.paths.run))) + "00000000")
    (rig.a.paths.run / "domains" / "stray").mkdir()
    rig.a.restart()
    assert [(change.uuid, change.state) for change in rig.a.heard] == [(lost.uuid, None)]
    assert [status.uuid for status in call(rig.a.driver.list)] == [kept.uuid]
    assert len(rig.taps(rig.a)) == 1
    assert [path.name for path in (rig.a.paths.run / "domains").iterdir()] == [str(kept.uuid)]
    assert len(rig.taps(rig.b)) == 1
    assert call(rig.b.driver.get, theirs.uuid) is not None


def test_a_qemu_that_hangs_is_shown_and_can_be_destroyed(
    rig: QemuRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plant_module, "_ADOPT_TIMEOUT_S", 0.2)
    monkeypatch.setattr(driver_module, "_QUIT_GRACE_S", 0.2)
    uuid = run(rig.a.driver.create(rig.config())).uuid
    (process,) = rig.processes(rig.a)
    process.suspend()
    rig.a.restart()
    status = call(rig.a.driver.get, uuid)
    assert status is not None
    assert status.state is DomainState.RUNNING
    with pytest.raises(DriverError, match="does not answer"):
        run(rig.a.driver.pause(uuid))
    run(rig.a.driver.destroy(uuid))
    assert rig.leftovers(rig.a) == []


def answers(rig: QemuRig, uuid: UUID) -> bool:
    try:
        run(rig.a.driver.pause(uuid))
    except DriverError:
        run(sleep(0.01))
        return False
    return True


async def sleep(time_s: float) -> None:
    await awaited(asyncio.sleep(time_s))


def break_connection(rig: QemuRig, uuid: UUID) -> None:
    """Break the daemon's connection to a QEMU that lives on."""
    assert isinstance(rig.a.driver, QemuDriver)
    writer = rig.a.driver._domains[uuid].monitor._client._writer
    call(lambda: writer.transport.get_extra_info("socket").shutdown(socket.SHUT_RDWR))


def test_a_connection_that_breaks_is_made_again_and_what_changed_meanwhile_is_told(
    rig: QemuRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver_module, "_RECONNECT_FIRST_S", 0.05)
    uuid = run(rig.a.driver.create(rig.config())).uuid
    for _ in range(2):
        break_connection(rig, uuid)
        while not answers(rig, uuid):
            pass
        assert call(rig.a.driver.list)[0].state is DomainState.PAUSED
        run(rig.a.driver.unpause(uuid))
    rig.kill(rig.a, uuid)
    rig.a.wait_heard(1)
    assert [(change.uuid, change.state) for change in rig.a.heard] == [(uuid, None)]
    assert [left for left in rig.leftovers(rig.a) if "/log/" not in left] == []


def test_a_qemu_that_hung_at_the_start_of_the_daemon_is_taken_up_when_it_answers(
    rig: QemuRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plant_module, "_ADOPT_TIMEOUT_S", 0.2)
    monkeypatch.setattr(driver_module, "_RECONNECT_FIRST_S", 0.05)
    uuid = run(rig.a.driver.create(rig.config(), paused=True)).uuid
    (process,) = rig.processes(rig.a)
    process.suspend()
    rig.a.restart()
    assert not answers(rig, uuid)
    process.resume()
    rig.a.wait_heard(1)
    assert [(change.uuid, change.state) for change in rig.a.heard] == [(uuid, DomainState.PAUSED)]
    run(rig.a.driver.unpause(uuid))


def test_a_relocation_whose_source_lost_its_connection_can_be_cancelled(
    rig: QemuRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver_module, "_RECONNECT_FIRST_S", 0.05)
    monkeypatch.setattr(outgoing_module, "DYING_S", 0.05)
    config = run(rig.a.driver.create(rig.config())).config
    move = Move(rig.a, rig.b, config).to("paused")
    break_connection(rig, config.uuid)
    while True:
        try:
            run(move.outgoing.cancel())
        except DriverError:
            run(sleep(0.01))
        else:
            break
    run(move.incoming.discard())
    move.close()
    assert move.states() == (DomainState.RUNNING, None)


def test_a_creation_that_is_cancelled_leaves_nothing(rig: QemuRig) -> None:
    async def scene() -> None:
        creating = Deferred.fromCoroutine(rig.a.driver.create(rig.config()))
        while not rig.processes(rig.a):
            await awaited(asyncio.sleep(0.001))
        creating.cancel()
        with pytest.raises(CancelledError):
            await creating

    run(scene())
    assert [left for left in rig.leftovers(rig.a) if "/log/" not in left] == []
    assert call(rig.a.driver.list) == []


def test_the_probe_is_asked_once_for_each_state_of_the_binary(rig: QemuRig) -> None:
    (cache,) = rig.a.paths.state.glob("qemu-*.json")
    before = cache.stat().st_mtime_ns
    rig.a.restart()
    assert cache.stat().st_mtime_ns == before
    cache.write_text("{}")
    rig.a.restart()
    assert call(rig.a.driver.facts) == call(rig.b.driver.facts)
    assert "q35" in cache.read_text()


@pytest.mark.parametrize(
    ("binary", "message"), [("/none/qemu", "there is no /none/qemu"), ("true", "does not run")]
)
def test_a_binary_that_is_no_qemu(tmp_path: Path, binary: str, message: str) -> None:
    paths = DriverPaths(state=tmp_path / "s", run=tmp_path / "r", boot=tmp_path / "b", log=tmp_path / "l")
    driver = call(QemuDriver, Config(qemu_binary=binary), paths)
    with pytest.raises(DriverError, match=message) as caught:
        run(driver.start())
    assert caught.value.hint
    run(driver.stop())
