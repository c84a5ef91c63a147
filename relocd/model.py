"""The values that everything else speaks of. Frozen, without behaviour beyond their own consistency, no I/O."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from uuid import UUID

from attrs import field, frozen, validators


class DomainState(enum.StrEnum):
    """What a domain is doing, as ``relocctl list`` shows it."""

    RUNNING = "running"
    PAUSED = "paused"
    SHUTDOWN = (
        "shutdown"  # the guest powered off and its configuration keeps the remains (on_poweroff=preserve)
    )
    CRASHED = "crashed"
    OUTGOING = "outgoing"  # paused here at the end of a relocation; the peer may own it already
    INCOMING = "incoming"  # being received; not running, not owned by this host


class Action(enum.StrEnum):
    """What becomes of a domain after power-off, reboot or crash (xl.cfg(5), on_poweroff and its siblings)."""

    DESTROY = "destroy"
    RESTART = "restart"
    PRESERVE = "preserve"


class Accelerator(enum.StrEnum):
    """How the guest's instructions are executed. Also the "virtualisation extension" that a target must match."""

    TCG = "tcg"
    KVM_VMX = "kvm-vmx"
    KVM_SVM = "kvm-svm"
    XEN_PV = "xen-pv"  # xen_caps: xen-3.0-x86_64
    XEN_HVM = "xen-hvm"  # xen_caps: hvm-3.0-x86_64, which PVH domains need, too


@frozen
class BootFile:
    """A kernel or ramdisk. ``path`` is where the administrator named it; content is known by its digest.

    ``sha256`` is lower-case hex, empty until the file was read; ``size_bytes`` likewise 0.
    """

    path: str
    sha256: str = ""
    size_bytes: int = 0


@frozen
class Disk:
    """One virtual disk: ``path`` on the host, ``vdev`` as the guest's name for it (xl-disk-configuration(5))."""

    path: str
    vdev: str
    format: str = "raw"
    readonly: bool = False


@frozen
class Vif:
    """One virtual network interface. ``mac`` is lower-case with colons; ``ip`` lists the guest's known addresses."""

    mac: str
    bridge: str
    model: str = "virtio-net"
    ip: tuple[str, ...] = ()


@frozen
class DomainConfig:
    """All that is needed to build a domain, here or on another host.

    ``machine``, ``cpu`` and ``accelerator`` may be empty in what an administrator writes; a driver fixes them when it
    creates the domain, and from then on they travel with it.
    """

    name: str
    uuid: UUID
    memory_mib: int = field(validator=validators.ge(1))
    vcpus: int = field(default=1, validator=validators.ge(1))
    hypervisor: str = "qemu"
    architecture: str = "x86_64"
    kernel: BootFile | None = None
    ramdisk: BootFile | None = None
    root: str = ""
    extra: str = ""
    disks: tuple[Disk, ...] = ()
    vifs: tuple[Vif, ...] = ()
    machine: str = ""
    cpu: str = ""
    accelerator: Accelerator | None = None
    on_poweroff: Action = Action.DESTROY
    on_reboot: Action = Action.RESTART
    on_crash: Action = Action.DESTROY

    @property
    def boot_files(self) -> tuple[BootFile, ...]:
        """Kernel and ramdisk, those that are set, in this order."""
        return tuple(f for f in (self.kernel, self.ramdisk) if f is not None)


@frozen
class DomainStatus:
    """A domain as it is now. ``id`` counts up per host and start of a domain, as xm's domid did.

    ``resident_mib`` is how much of the host's memory the domain's process holds already; the rest of what it was
    promised is still counted as available by the operating system.
    """

    config: DomainConfig
    id: int
    state: DomainState
    cpu_time_s: float = 0.0
    resident_mib: int = 0

    @property
    def name(self) -> str:
        return self.config.name

    @property
    def uuid(self) -> UUID:
        return self.config.uuid


CpuWords = Mapping[str, int]
"""What the CPUID instruction tells a guest: 32 bits for each register of each leaf, by names such as ``7.0.ebx``.
Empty where that is not known."""


@frozen
class HypervisorFacts:
    """What a driver can offer on this host, as preflight compares it.

    ``channels_max``: over how many channels, beside its main stream, the hypervisor can spread what it compresses
    itself, to or from one of the same version; 0 if it does nothing of the kind.
    """

    driver: str
    version: str
    architecture: str
    accelerators: frozenset[Accelerator]
    machines: frozenset[str]
    cpu_models: frozenset[str]
    channels_max: int = 0


@frozen
class Progress:
    """Where an outgoing relocation stands, as the hypervisor counts it. Sizes in bytes, rates in bytes per second.

    ``round`` is 1 during the first pass over memory. ``round_bytes`` is what remained when the round began, 0 where
    that is not known. ``downtime_ms`` is set once the hypervisor reports it.
    """

    round: int = 0
    total_bytes: int = 0
    remaining_bytes: int = 0
    round_bytes: int = 0
    dirty_rate_bytes_s: int = 0
    downtime_ms: int | None = None


@frozen
class Load:
    """What the guest of a domain does to its memory, as a driver sampled it. Sizes in bytes.

    ``dirtied_bytes``: how much memory was written to at least once within one second, and within two; memory that is
    written again and again counts once. ``in_use_bytes``: memory that holds more than zeros, as far as is known.
    """

    dirtied_bytes: tuple[int, int]
    in_use_bytes: int


class OutcomeKind(enum.StrEnum):
    """How a relocation ended, from the domain's point of view."""

    COMPLETED = "completed"  # runs on the target
    REFUSED = "refused"  # the target (or this host) said no before anything moved
    FAILED = "failed"  # began and was undone: the domain is on the source
    RESOLVED = "resolved"  # an operator gave up the copy here: the target has the domain, or nobody
    UNKNOWN = "unknown"  # committed, not yet confirmed: both sides keep asking
