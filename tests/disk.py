"""Disks of a test: a small file system and how to fill it to the last block, and a block device."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

#: The file that takes all the room.
FILLER = "filler"


@contextlib.contextmanager
def small_disk(mount_point: Path, size_kib: int = 512) -> Iterator[Path]:
    """A file system with little room, mounted for as long as the context lasts."""
    mount_point.mkdir(parents=True)
    options = f"size={size_kib}k,mode=0700"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "relocd-test", str(mount_point)], check=True)
    try:
        yield mount_point
    finally:
        subprocess.run(["umount", "--lazy", str(mount_point)], check=True)


def fill(directory: Path) -> Path:
    """Take all the room that is left; removing the file gives it back."""
    path = directory / FILLER
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    with contextlib.suppress(OSError):  # no space left on device, some time
        while True:
            os.write(descriptor, bytes(4096))
    os.close(descriptor)
    assert os.statvfs(directory).f_bavail == 0
    return path


@contextlib.contextmanager
def loop_device(size_bytes: int = 1 << 20) -> Iterator[str]:
    """A block device of this host that holds zeros. Needs root."""
    with tempfile.NamedTemporaryFile() as image:
        image.truncate(size_bytes)
        argv = ["losetup", "--find", "--show", image.name]
        device = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()
        try:
            yield device
        finally:
            subprocess.run(["losetup", "--detach", device], check=True)
