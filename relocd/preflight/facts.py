"""What preflight knows about two hosts at one moment."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from uuid import UUID

from attrs import field, frozen

from relocd.config.model import L2Mode
from relocd.model import CpuWords, HypervisorFacts
from relocd.segment.proof import Crossing


class DiskKind(enum.StrEnum):
    """Who can reach what lies at a disk's path."""

    LOCAL = "local"  # a file on a file system of this host alone, so that every lock on it is seen here
    SHARED = "shared"  # a file on a file system that other hosts may have mounted, too
    DEVICE = "device"  # a block device, by whatever network


@frozen
class DiskFact:
    """What was found at a disk's path. ``size_bytes`` is -1 for a device whose size is not known.

    ``locked``: a hypervisor of this kind holds it; None if that cannot be seen. ``samples`` are short digests of its
    content at places that depend on its size only, ``""`` for a place that holds zeros. ``problem`` says why it must
    not be given to a domain of a peer.
    """

    path: str
    exists: bool
    readable: bool = False
    writable: bool = False
    size_bytes: int = -1
    kind: DiskKind = DiskKind.LOCAL
    locked: bool | None = None
    samples: tuple[str, ...] = ()
    problem: str = ""


@frozen
class SourceFacts:
    """The host that a domain comes from, and the domain as it runs there. Empty fields: it did not say.

    ``clock_s`` is its wall clock when it said so, in seconds since 1970. ``disks`` is by path. ``heard`` are the
    bridges on which it has got answers to its probes, ``tunnel_trouble`` why it could not join others.
    """

    hypervisor_version: str = ""
    clock_s: float = 0.0
    cpu: CpuWords = field(factory=dict)
    disks: Mapping[str, DiskFact] = field(factory=dict)
    heard: frozenset[str] = frozenset()
    tunnel_trouble: str = ""


@frozen
class SegmentFacts:
    """What a probe said of the bridges of both hosts, by their names, and what is to be done about it.

    The addresses are those of the dialogue: between them a tunnel would run. ``asks_only``: nothing is to move now,
    so none was made. ``tunnel_trouble`` says why none could be.
    """

    mode: L2Mode
    source_host: str
    source_address: str
    target_address: str
    crossings: Mapping[str, Crossing] = field(factory=dict)
    asks_only: bool = False
    tunnel_trouble: str = ""


@frozen
class TargetFacts:
    """A target host as preflight judges it. Memory in MiB; ``reserved_mib`` is promised to other arrivals.

    ``domains`` maps names to UUIDs of all domains of the host, those being received included. ``disks`` has an entry
    for each path that the proposed domain names and that lies in an allowed directory. ``cpu`` is what the proposed
    domain would find here. ``segments`` is None if the source has not probed.
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
    clock_s: float = 0.0
    cpu: CpuWords = field(factory=dict)
    segments: SegmentFacts | None = None
