"""Disks of the host: how QEMU may open them, and how it takes hold of them again without running the guest."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from relocd.drivers.qemu.cmdline import DiskAccess
from relocd.drivers.qemu.qmp import Monitor
from relocd.errors import DriverError
from relocd.model import Disk


def examine(disk: Disk) -> DiskAccess:
    """How a disk can be opened on this host. Blocks. Raises DriverError if it cannot."""
    flags = os.O_RDONLY if disk.readonly else os.O_RDWR
    try:
        mode = Path(disk.path).stat().st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
            raise DriverError(f"disk {disk.path} is neither a file nor a block device")
        os.close(os.open(disk.path, flags | os.O_NONBLOCK))
    except OSError as error:
        raise DriverError(f"cannot open disk {disk.path}: {error.strerror}") from error
    return DiskAccess(block_device=stat.S_ISBLK(mode), direct=_opens_directly(disk.path, flags))


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
    path.unlink(missing_ok=True)
    await monitor.execute("nbd-server-start", {"addr": {"type": "unix", "data": {"path": str(path)}}})
    try:
        for index in writable:
            export = {"type": "nbd", "id": f"activate{index}", "node-name": f"disk{index}", "writable": False}
            await monitor.execute("block-export-add", export)
    finally:
        await monitor.execute("nbd-server-stop")  # removes the exports and the socket too
