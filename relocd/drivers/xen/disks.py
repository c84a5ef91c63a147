"""Which disks of a peer's domain Xen may be told to open. Blocks."""

from __future__ import annotations

import os
from collections.abc import Sequence

from relocd.errors import DriverError
from relocd.model import Disk
from relocd.preflight.rules import within

RAW = "raw"


def check_disks(disks: Sequence[Disk], roots: tuple[str, ...]) -> None:
    """Raise DriverError for a disk that lies, links followed, in none of the directories ``roots``.

    Formats that name other files, on which a disk rests, are left to hosts that trust where disks lie (``/``).
    """
    real_roots = tuple(os.path.realpath(root) for root in roots)
    for disk in disks:
        real = os.path.realpath(disk.path)
        if not within(real, real_roots):
            raise DriverError(
                f"disk {disk.path} leads to {real}, outside the directories that this host allows for peers' disks",
                hint="xen-relocation-disk-paths names them.",
            )
        if disk.format != RAW and "/" not in real_roots:
            raise DriverError(
                f"disk {disk.path} is {disk.format}, which may rest on files anywhere",
                hint="With the driver xen only raw disks are received.",
            )
