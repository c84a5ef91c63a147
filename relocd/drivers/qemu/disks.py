"""Disks of the host: how QEMU may open them, and how it takes hold of them again without running the guest."""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from relocd.drivers.aio import awaited
from relocd.drivers.qemu.cmdline import Backing, DiskAccess
from relocd.drivers.qemu.locks import blocker
from relocd.drivers.qemu.qmp import Monitor
from relocd.drivers.qemu.sockets import listening
from relocd.drivers.worker import Worker
from relocd.errors import DriverError
from relocd.host.images import layers, lies_within, outside
from relocd.model import Disk
from relocd.preflight.rules import within

_EXPORT = "relocd-activate"
_UNLOCK_TRIES = 20
_UNLOCK_PAUSE_S = 0.1
"""A look at an image locks it for a moment; whoever still has it after two seconds means to keep it."""


def examine(disk: Disk, roots: tuple[str, ...]) -> DiskAccess:
    """How a disk can be opened on this host. Blocks.

    Raises DriverError if it cannot, or if it or something that it rests on lies outside of the directories ``roots``.
    """
    chain = layers(disk.path, disk.format)
    for path in outside(chain, roots):
        raise DriverError(f"disk {disk.path}: {path} lies outside of {' '.join(roots)}")
    device, direct = _opened(disk.path, os.O_RDONLY if disk.readonly else os.O_RDWR)
    backing = (Backing(layer.path, layer.format, *_opened(layer.path, os.O_RDONLY)) for layer in chain[1:])
    return DiskAccess(device, direct, tuple(backing))


def _opened(path: str, flags: int) -> tuple[bool, bool]:
    """Whether it is a block device, and whether it opens past the page cache."""
    try:
        mode = Path(path).stat().st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
            raise DriverError(f"disk {path} is neither a file nor a block device")
        os.close(os.open(path, flags | os.O_NONBLOCK))
    except OSError as error:
        raise DriverError(f"cannot open disk {path}: {error.strerror}") from error
    return stat.S_ISBLK(mode), _opens_directly(path, flags)


def opened_elsewhere(
    pid: int, disks: Sequence[Disk], disk_roots: tuple[str, ...], others: Sequence[str]
) -> Iterator[str]:
    """Files and block devices that a process has open outside of these directories. Blocks.

    What the names of disks lead to was looked at before; this is what was really opened, whoever changed a link
    meanwhile. ``others`` are directories that disks may not be in.
    """
    real_roots = tuple(os.path.realpath(root) for root in (*disk_roots, *others))
    named = {layer.path for disk in disks for layer in layers(disk.path, disk.format)}
    devices = {os.path.realpath(path) for path in named if lies_within(path, disk_roots)}
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            mode, path = entry.stat().st_mode, str(entry.readlink())
            kept = within(path, real_roots) or (stat.S_ISBLK(mode) and path in devices)
            if (stat.S_ISREG(mode) or stat.S_ISBLK(mode)) and not kept:
                yield path


def _opens_directly(path: str, flags: int) -> bool:
    try:
        os.close(os.open(path, flags | os.O_DIRECT | os.O_NONBLOCK))
    except OSError:
        return False
    return True


async def activate(monitor: Monitor, disks: tuple[Disk, ...], run_dir: Path) -> None:
    """Make a paused QEMU take its disks, and their locks, again after a migration.

    QEMU does that by itself only when the guest is resumed. Without it a paused domain's images are open to
    anyone, and QEMU 7.2 aborts ("Assertion `!(bs->open_flags & BDRV_O_INACTIVE)' failed") when a domain that
    arrived paused is migrated once more. Exporting a disk activates it; nobody connects to the export.
    """
    writable = [index for index, disk in enumerate(disks) if not disk.readonly]
    if not writable:
        return
    path = run_dir / "nbd.sock"
    with listening(path) as listener:  # made here: QEMU may be a user that can make nothing in this directory
        path.unlink()
        await monitor.send_descriptor(listener.fileno(), _EXPORT)
    await monitor.execute("nbd-server-start", {"addr": {"type": "fd", "data": {"str": _EXPORT}}})
    try:
        for index in writable:
            export = {"type": "nbd", "id": f"activate{index}", "node-name": f"disk{index}", "writable": False}
            await monitor.execute("block-export-add", export)
    finally:
        await monitor.execute("nbd-server-stop")  # removes the exports, too


class Claims:
    """Looks whether disks could be taken hold of; in a thread of its own, since a domain waits meanwhile, paused."""

    def __init__(self) -> None:
        self._worker = Worker("locks")

    async def wait_free(self, disks: Sequence[Disk], pid: int) -> None:
        """Return once nobody but the QEMU of that process id has a disk locked.

        Raises DriverError with the disk and who has it, if that does not end soon.
        """
        for _ in range(_UNLOCK_TRIES):
            if not await self._blocked(disks, pid):
                return
            await awaited(asyncio.sleep(_UNLOCK_PAUSE_S))
        await self.check_free(disks, pid)

    async def check_free(self, disks: Sequence[Disk], pid: int) -> None:
        """Raise DriverError with the disk and who has it, if anybody but that QEMU has one locked now."""
        blocked = await self._blocked(disks, pid)
        if blocked:
            disk, who = blocked
            raise DriverError(
                f"disk {disk.path} is still locked by {who}",
                hint="End what uses the disk there. A domain's disk belongs to one QEMU at a time.",
            )

    def close(self) -> None:
        """Look no more."""
        self._worker.stop()

    async def _blocked(self, disks: Sequence[Disk], pid: int) -> tuple[Disk, str] | None:
        return await self._worker.run(_first_blocked, disks, pid) if disks else None


def _first_blocked(disks: Sequence[Disk], pid: int) -> tuple[Disk, str] | None:
    for disk in disks:
        who = blocker(disk, pid)
        if who:
            return disk, who
    return None
