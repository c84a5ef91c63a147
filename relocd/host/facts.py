"""Facts of this host that preflight judges by. Everything here may block and runs in a thread."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import socket
import stat
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import psutil

from relocd.errors import DriverError
from relocd.host.images import layers, lies_within, outside
from relocd.model import Disk, DomainStatus
from relocd.preflight.facts import DiskFact, DiskKind
from relocd.preflight.rules import needed_mib, within

MIB = 1 << 20

#: File systems that several hosts can have mounted, beside those of FUSE.
_NETWORK_KINDS = frozenset(
    {"9p", "afs", "beegfs", "ceph", "cifs", "coda", "gfs2", "glusterfs", "gpfs", "lustre", "nfs", "nfs4"}
    | {"ocfs2", "orangefs", "pvfs2", "smb3", "virtiofs", "vmhgfs"}
)

_SAMPLES = 16
_SAMPLE_BYTES = 4096
_DIGEST_DIGITS = 16


def host_name() -> str:
    """This host's name, as peers and operators see it."""
    return socket.gethostname()


def memory_available_mib() -> int:
    """Memory that processes can get without swapping, in MiB (psutil's ``available``)."""
    return int(psutil.virtual_memory().available // MIB)


def memory_total_mib() -> int:
    """All memory of this host, in MiB."""
    return int(psutil.virtual_memory().total // MIB)


def promised_mib(domains: Sequence[DomainStatus]) -> int:
    """Memory that domains were promised and have not touched yet, so that the system still calls it available."""
    return sum(max(0, needed_mib(domain.config) - domain.resident_mib) for domain in domains)


def bridges() -> frozenset[str]:
    """Names of the bridges in this network namespace (a device with a ``bridge`` folder in sysfs)."""
    return frozenset(entry.parent.name for entry in Path("/sys/class/net").glob("*/bridge"))


Locked = Callable[[str], bool | None]
"""Whether a hypervisor has locked what lies at a path, None if that cannot be seen."""


def disk_fact(path: str, roots: tuple[str, ...], locked: Locked, image_format: str = "raw") -> DiskFact:
    """What lies at a disk's path. A path that leads out of the allowed directories by a link counts as absent."""
    real = os.path.realpath(path)
    if not lies_within(path, roots):
        return DiskFact(path, exists=False)
    try:
        info = Path(real).stat()
    except OSError:
        return DiskFact(path, exists=False)
    readable = os.access(real, os.R_OK) and (stat.S_ISREG(info.st_mode) or stat.S_ISBLK(info.st_mode))
    size_bytes = _size_bytes(real, info) if readable else -1
    return DiskFact(
        path,
        exists=True,
        readable=readable,
        writable=os.access(real, os.W_OK),
        size_bytes=size_bytes,
        kind=_kind(real, info),
        locked=locked(real) if readable else None,
        samples=_samples(real, size_bytes),
        problem=_problem(path, roots, image_format) if readable else "",
    )


def disk_facts(disks: Iterable[Disk], roots: tuple[str, ...], locked: Locked) -> dict[str, DiskFact]:
    """One fact for each path that lies in an allowed directory; a peer learns nothing about others."""
    found: dict[str, DiskFact] = {}
    for disk in disks:
        if within(disk.path, roots) and not (disk.path in found and found[disk.path].problem):
            found[disk.path] = disk_fact(disk.path, roots, locked, disk.format)
    return found


def _problem(path: str, roots: tuple[str, ...], image_format: str) -> str:
    """Why a peer's domain may not have what could be opened; empty if it may."""
    try:
        chain = layers(path, image_format)
    except DriverError as error:
        return str(error)
    for place in outside(chain, roots):
        return f"disk {path} rests on {place}, outside the directories that are allowed for peers' disks"
    for layer in chain:
        if _is_held(layer.path):
            return f"disk {layer.path} is in use by the host itself: mounted, swapped to, or part of a volume"
    return ""


def _is_held(path: str) -> bool:
    """Whether the kernel uses a block device: open(2) with O_EXCL fails then. QEMU does not ask."""
    try:
        if stat.S_ISBLK(Path(path).stat().st_mode):
            os.close(os.open(path, os.O_RDONLY | os.O_EXCL | os.O_NONBLOCK))
    except OSError as error:
        return error.errno == errno.EBUSY
    return False


def _size_bytes(path: str, info: os.stat_result) -> int:
    """A device's size is not in what stat(2) says of it; -1 if it cannot be opened."""
    if not stat.S_ISBLK(info.st_mode):
        return info.st_size
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return -1
    try:
        return os.lseek(descriptor, 0, os.SEEK_END)
    finally:
        os.close(descriptor)


def _kind(path: str, info: os.stat_result) -> DiskKind:
    if stat.S_ISBLK(info.st_mode):
        return DiskKind.DEVICE
    kind = file_system(Path("/proc/self/mountinfo").read_text().splitlines(), path)
    return DiskKind.SHARED if kind in _NETWORK_KINDS or kind.startswith("fuse") else DiskKind.LOCAL


def file_system(mounts: Iterable[str], path: str) -> str:
    """The kind of file system that a path lies on, by lines of proc_pid_mountinfo(5). The last mount counts."""
    found, kind = "", ""
    for line in mounts:
        place, _, rest = line.partition(" - ")
        point = _plain(place.split()[4])
        if len(point) >= len(found) and (path + "/").startswith(point.rstrip("/") + "/"):
            found, kind = point, rest.split()[0]
    return kind


def _plain(text: str) -> str:
    """Spaces and the like are written as three octal digits there."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)


def _samples(path: str, size_bytes: int) -> tuple[str, ...]:
    """Short digests of blocks from all over a disk, the first and the last among them; "" for zeros.

    A guest that runs goes on writing, so some may differ from what another host reads a moment later.
    """
    if size_bytes < _SAMPLE_BYTES:
        return ()
    last = size_bytes - _SAMPLE_BYTES
    places = [last * number // (_SAMPLES - 1) for number in range(_SAMPLES)]
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return ()
    try:
        return tuple(_digest(os.pread(descriptor, _SAMPLE_BYTES, place)) for place in places)
    except OSError:
        return ()
    finally:
        os.close(descriptor)


def _digest(block: bytes) -> str:
    return hashlib.sha256(block).hexdigest()[:_DIGEST_DIGITS] if any(block) else ""
