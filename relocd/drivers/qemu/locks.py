"""Who has locked a disk, as QEMU locks images: asked without taking a lock. Everything here blocks.

QEMU keeps a read lock on one byte of the image for each permission that it uses and one for each that it grants to
nobody else, and looks for conflicting ones of others before (block/file-posix.c, raw_check_lock_bytes). The locks
belong to open file descriptions (fcntl(2)), so the kernel does not say whose they are; /proc/PID/fdinfo does.
"""

from __future__ import annotations

import contextlib
import enum
import errno
import fcntl
import os
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path

from attrs import frozen

from relocd.errors import DriverError
from relocd.model import Disk

#: First byte of the locks for permissions in use, and of those for permissions withheld (block/file-posix.c).
USED_BASE, WITHHELD_BASE = 100, 200
_END = 300


class Permission(enum.IntEnum):
    """Bits of include/block/block-common.h, by number."""

    CONSISTENT_READ = 0
    WRITE = 1
    WRITE_UNCHANGED = 2
    RESIZE = 3


#: struct flock of 64-bit Linux (fcntl(2)): type, whence, start, length, pid, padded to a multiple of 8.
_FLOCK = struct.Struct("@hhqqi0q")

#: What a file system answers that knows no such locks; QEMU takes none there either.
_NO_LOCKS = frozenset({errno.EINVAL, errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP})


@frozen
class Holder:
    """A process of this host that holds a lock."""

    pid: int
    program: str


def conflicting(disk: Disk) -> tuple[int, ...]:
    """The bytes that nobody else may have locked when QEMU takes hold of a disk."""
    used, withheld = {Permission.CONSISTENT_READ}, {Permission.WRITE}
    if disk.format != "raw":  # an image with metadata, which may not change its size under us either
        withheld |= {Permission.RESIZE}
    if not disk.readonly:
        used |= withheld
    return tuple(sorted({USED_BASE + bit for bit in withheld} | {WITHHELD_BASE + bit for bit in used}))


def blocker(disk: Disk, ours: int) -> str:
    """Who keeps our QEMU, of process id ``ours``, from taking hold of a disk; empty if nobody does.

    Raises DriverError if the disk cannot be opened.
    """
    offsets = conflicting(disk)
    try:
        descriptor = os.open(disk.path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError as error:
        raise DriverError(f"cannot open disk {disk.path}: {error.strerror}") from error
    try:
        if not any(_locked(descriptor, offset) for offset in offsets):
            return ""
        found = list(holders(descriptor, offsets))
    finally:
        os.close(descriptor)
    if any(holder.pid == ours for holder in found):
        return ""  # QEMU would not have got it beside another one's lock
    return ", ".join(f"{holder.program} (pid {holder.pid})" for holder in found) or "another host"


def in_use(path: str) -> bool | None:
    """Whether any QEMU has a disk open, on whichever host if the file system carries locks; None if it has none.

    Of a disk that cannot be opened nothing is known.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        return _held(descriptor, USED_BASE, _END - USED_BASE)
    except OSError:
        return None
    finally:
        os.close(descriptor)


def holders(descriptor: int, offsets: Iterable[int]) -> Iterator[Holder]:
    """The processes of this host that hold a lock on one of the bytes of an open file."""
    wanted, own = frozenset(offsets), os.fstat(descriptor)
    for process in Path("/proc").iterdir():
        if process.name.isdecimal() and any(wanted & held for held in _locks_of(process, own)):
            yield Holder(int(process.name), _program(process))


def _locked(descriptor: int, offset: int) -> bool:
    try:
        return _held(descriptor, offset, 1)
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return False
        raise DriverError(f"cannot ask for the locks of a disk: {error.strerror}") from error


def _held(descriptor: int, offset: int, count: int) -> bool:
    question = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, offset, count, 0)
    answer = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, question)
    return bool(_FLOCK.unpack(answer)[0] != fcntl.F_UNLCK)


def _locks_of(process: Path, file: os.stat_result) -> Iterator[frozenset[int]]:
    """The locked bytes, as far as QEMU's reach, of each descriptor by which a process has the file open."""
    with contextlib.suppress(OSError):  # it may end meanwhile
        for entry in (process / "fd").iterdir():
            with contextlib.suppress(OSError):
                if _same(entry.stat(), file):
                    yield _offsets((process / "fdinfo" / entry.name).read_text())


def _same(one: os.stat_result, other: os.stat_result) -> bool:
    return (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)


def _offsets(fdinfo: str) -> frozenset[int]:
    """From lines such as ``lock:  1: OFDLCK  ADVISORY  READ -1 fe:00:2335362 100 101`` (proc_locks(5))."""
    held: set[int] = set()
    for line in fdinfo.splitlines():
        if line.startswith("lock:") and " FLOCK " not in line:
            first, last = line.split()[-2:]
            end = _END if last == "EOF" else min(int(last) + 1, _END)
            held.update(range(int(first), end))
    return frozenset(held)


def _program(process: Path) -> str:
    try:
        return (process / "comm").read_text().strip()
    except OSError:
        return "a process"
