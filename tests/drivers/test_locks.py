"""Who has a disk locked: QEMU's lock bytes, taken by this process, by another one, by nobody to be found, by QEMU."""

from __future__ import annotations

import fcntl
import os
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from attrs import evolve

from relocd.drivers.qemu import disks as disks_module
from relocd.drivers.qemu import locks as locks_module
from relocd.drivers.qemu.disks import Claims
from relocd.drivers.qemu.locks import blocker, conflicting
from relocd.errors import DriverError
from relocd.model import Disk, DomainConfig, DomainState
from tests.contracts.move import Move
from tests.contracts.rigs import QemuRig
from tests.reactor import call, run

NOBODY = 0

#: What QEMU 7.2 was seen to lock (/proc/PID/fdinfo) for a raw disk that its guest writes, or only reads.
WRITER, READER = (100, 101, 201), (100, 201)


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    path = tmp_path / "disk.img"
    path.write_bytes(bytes(512))
    return Disk(str(path), "xvda")


def take(path: str, offsets: tuple[int, ...]) -> int:
    """Lock bytes as QEMU does; the descriptor that holds them."""
    descriptor = os.open(path, os.O_RDWR)
    for offset in offsets:
        request = struct.pack("@hhqqi0q", fcntl.F_RDLCK, os.SEEK_SET, offset, 1, 0)
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, request)
    return descriptor


@pytest.mark.parametrize(
    ("disk_format", "readonly", "offsets"),
    [
        ("raw", False, (101, 200, 201)),
        ("raw", True, (101, 200)),
        ("qcow2", False, (101, 103, 200, 201, 203)),
        ("qcow2", True, (101, 103, 200)),
    ],
)
def test_which_locks_of_others_conflict(disk_format: str, readonly: bool, offsets: tuple[int, ...]) -> None:
    assert conflicting(Disk("/x", "xvda", disk_format, readonly)) == offsets


@pytest.mark.parametrize(
    ("readonly", "held", "blocks"),
    [
        (False, WRITER, True),
        (False, READER, True),  # one that reads and lets nobody write
        (False, (100,), False),  # one that reads and does not care
        (True, WRITER, True),
        (True, READER, False),
        (False, (99, 102, 202, 300), False),
    ],
)
def test_a_lock_is_seen_with_its_holder_and_gone_when_given_up(
    disk: Disk, readonly: bool, held: tuple[int, ...], blocks: bool
) -> None:
    disk = evolve(disk, readonly=readonly)
    assert blocker(disk, NOBODY) == ""
    descriptor = take(disk.path, held)
    who = blocker(disk, NOBODY)
    if blocks:
        assert f"(pid {os.getpid()})" in who
    else:
        assert who == ""
    assert blocker(disk, os.getpid()) == ""
    os.close(descriptor)
    assert blocker(disk, NOBODY) == ""


def test_another_process_is_named_by_its_program(disk: Disk) -> None:
    descriptor = take(disk.path, WRITER)
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=(descriptor,))
    os.close(descriptor)
    try:
        assert blocker(disk, NOBODY) == f"{Path(sys.executable).name} (pid {other.pid})"
    finally:
        other.communicate(b"\n")
    assert blocker(disk, NOBODY) == ""


def test_a_holder_that_is_not_of_this_host(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shared storage tells of a lock of another host, where no process of this one has it."""
    descriptor = take(disk.path, WRITER)
    monkeypatch.setattr(locks_module, "holders", lambda *_: iter(()))
    assert blocker(disk, NOBODY) == "another host"
    os.close(descriptor)


def test_a_lock_of_the_whole_file_conflicts_and_one_of_flock_does_not(disk: Disk) -> None:
    with Path(disk.path).open("r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert blocker(disk, NOBODY) == ""
        fcntl.lockf(file, fcntl.LOCK_EX)
        assert f"(pid {os.getpid()})" in blocker(disk, NOBODY)


def test_a_disk_that_is_gone(disk: Disk) -> None:
    with pytest.raises(DriverError, match="cannot open disk /none"):
        blocker(evolve(disk, path="/none"), NOBODY)


def test_a_lock_that_is_given_up_soon_is_waited_for(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disks_module, "_UNLOCK_TRIES", 1_000_000)
    monkeypatch.setattr(disks_module, "_UNLOCK_PAUSE_S", 0.001)
    claims = call(Claims)
    descriptor = take(disk.path, WRITER)
    asked = threading.Event()

    def seen(disk: Disk, ours: int) -> str:
        who = blocker(disk, ours)
        asked.set()
        return who

    monkeypatch.setattr(disks_module, "blocker", seen)
    letting_go = threading.Thread(target=lambda: (asked.wait(), os.close(descriptor)))
    letting_go.start()
    run(claims.wait_free([disk], NOBODY))
    letting_go.join()
    call(claims.close)


def test_one_that_is_kept_is_told(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disks_module, "_UNLOCK_PAUSE_S", 0.001)
    claims = call(Claims)
    free = evolve(disk, path=disk.path + ".free")
    Path(free.path).write_bytes(b"")
    descriptor = take(disk.path, WRITER)
    with pytest.raises(
        DriverError, match=f"disk {disk.path} is still locked by .*pid {os.getpid()}"
    ) as caught:
        run(claims.wait_free([free, disk], NOBODY))
    assert caught.value.hint
    os.close(descriptor)
    call(claims.close)


# -- real QEMUs ----------------------------------------------------------------------------------------------------


@pytest.fixture
def rig() -> Iterator[QemuRig]:
    rig = QemuRig()
    yield rig
    rig.close()


def steal(rig: QemuRig, config: DomainConfig) -> DomainConfig:
    """A second QEMU that holds the domain's disk, on the source."""
    return run(rig.a.driver.create(evolve(config, name="thief", uuid=uuid4(), vifs=()))).config


def wait_unlocked(config: DomainConfig) -> None:
    """Until the source's QEMU has given up its locks."""
    (disk,) = config.disks
    for _ in range(5000):
        if not blocker(disk, NOBODY):
            return
    raise AssertionError("the source keeps its lock")


@pytest.mark.qemu
@pytest.mark.netns
@pytest.mark.parametrize("paused", [False, True])
def test_a_disk_that_somebody_took_on_the_way_is_told_before_the_commit(rig: QemuRig, paused: bool) -> None:
    config = run(rig.a.driver.create(rig.config(), paused=paused)).config
    move = Move(rig.a, rig.b, config).to("paused")
    move.absorb()
    run(move.outgoing.switch_over())
    wait_unlocked(config)  # all is sent, the target has not seen the end of it
    thief = steal(rig, config)
    move.go_on()
    with pytest.raises(DriverError, match=r"disk /.* is still locked by qemu-system-x86 \(pid \d+\)"):
        run(move.incoming.loaded())
    with pytest.raises(DriverError, match=r"disk /.* is still locked by qemu-system-x86 \(pid \d+\)"):
        run(move.outgoing.cancel())
    run(rig.a.driver.destroy(thief.uuid))
    run(move.outgoing.cancel())
    run(move.incoming.discard())
    move.close()
    assert move.states() == (DomainState.PAUSED if paused else DomainState.RUNNING, None)


@pytest.mark.qemu
@pytest.mark.netns
@pytest.mark.parametrize("paused", [False, True])
def test_one_that_was_taken_after_the_commit_is_told_until_it_is_free(rig: QemuRig, paused: bool) -> None:
    config = run(rig.a.driver.create(rig.config(), paused=paused)).config
    move = Move(rig.a, rig.b, config).to("finished")
    thief = steal(rig, config)
    for _ in range(2):
        with pytest.raises(DriverError, match=r"disk /.* is still locked by qemu-system-x86 \(pid \d+\)"):
            run(move.incoming.resume(paused=paused))
    run(rig.a.driver.destroy(thief.uuid))
    move.complete(paused=paused)
    assert move.states() == (None, DomainState.PAUSED if paused else DomainState.RUNNING)
    assert steal_fails(rig, config)


def steal_fails(rig: QemuRig, config: DomainConfig) -> bool:
    try:
        steal(rig, config)
    except DriverError as error:
        return "lock" in str(error)
    return False
