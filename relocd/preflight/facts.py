"""What preflight knows about a target host at one moment."""

from __future__ import annotations

from uuid import UUID

from attrs import field, frozen

from relocd.model import HypervisorFacts


@frozen
class DiskFact:
    """What was found at a disk's path. ``size_bytes`` is -1 for a device whose size is not known."""

    path: str
    exists: bool
    readable: bool = False
    writable: bool = False
    size_bytes: int = -1


@frozen
class TargetFacts:
    """A target host as preflight judges it. Memory in MiB; ``reserved_mib`` is promised to other arrivals.

    ``domains`` maps names to UUIDs of all domains of the host, those being received included. ``disks`` has an entry
    for each path that the proposed domain names and that lies in an allowed directory.
    """

    host: str
    hypervisor: HypervisorFacts
    memory_available_mib: int
    memory_host_reserve_mib: int
    memory_reserved_mib: int
    domains: dict[str, UUID] = field(factory=dict)
    bridges: frozenset[str] = frozenset()
    disk_roots: tuple[str, ...] = ()
    disks: dict[str, DiskFact] = field(factory=dict)
    boot_file_limit_bytes: int = 0
    incoming: int = 0
    incoming_limit: int = 0
