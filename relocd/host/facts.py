"""Facts of this host that preflight judges by. Everything here may block and runs in a thread."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Sequence
from pathlib import Path

import psutil

from relocd.model import DomainStatus
from relocd.preflight.facts import DiskFact
from relocd.preflight.rules import needed_mib, within

MIB = 1 << 20


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


def disk_fact(path: str, roots: tuple[str, ...]) -> DiskFact:
    """What lies at a disk's path. A path that leads out of the allowed directories by a link counts as absent."""
    real = os.path.realpath(path)
    if not within(real, tuple(os.path.realpath(root) for root in roots)):
        return DiskFact(path, exists=False)
    try:
        info = Path(real).stat()
    except OSError:
        return DiskFact(path, exists=False)
    return DiskFact(
        path,
        exists=True,
        readable=os.access(real, os.R_OK),
        writable=os.access(real, os.W_OK),
        size_bytes=info.st_size or -1,
    )


def disk_facts(paths: Iterable[str], roots: tuple[str, ...]) -> dict[str, DiskFact]:
    """One fact for each path that lies in an allowed directory; a peer learns nothing about others."""
    return {path: disk_fact(path, roots) for path in paths if within(path, roots)}
