"""The daemon's settings as one frozen value. Which key sets which field: :mod:`relocd.config.keys`."""

from __future__ import annotations

import enum

from attrs import frozen

MIB = 1024 * 1024

QEMU_USER = "relocd-qemu"
"""The default of qemu-user, which need not exist."""


class Compression(enum.StrEnum):
    """Which codec the lanes use for pages."""

    AUTO = "auto"  # decided batch by batch from the speed of the link
    NONE = "none"
    ZSTD = "zstd"


class TlsMode(enum.StrEnum):
    """Whether connections to other hosts are encrypted and prove who is at their ends."""

    OFF = "off"
    PREFER = "prefer"  # if both hosts have a certificate; without them plain
    REQUIRE = "require"


class AcceleratorChoice(enum.StrEnum):
    """What the qemu driver may use to execute guests. AUTO is KVM where /dev/kvm works, TCG elsewhere."""

    AUTO = "auto"
    TCG = "tcg"
    KVM = "kvm"


class FirewallMode(enum.StrEnum):
    """What relocd does about the host's packet filter."""

    OFF = "off"
    CHECK = "check"  # looks and tells, changes nothing
    MANAGE = "manage"


class L2Mode(enum.StrEnum):
    """What is done about a domain whose bridges here and there are not one segment."""

    REQUIRE = "require"  # it does not move
    WARN = "warn"
    TUNNEL = "tunnel"  # the bridges are joined


class LogLevel(enum.StrEnum):
    """The least important message that is logged. The names are those of twisted.logger."""

    DEBUG = "debug"
    INFO = "info"
    WARN = "warn"
    ERROR = "error"
    CRITICAL = "critical"


@frozen
class Config:
    """All settings of one daemon. ``Config()`` is what an empty file means.

    The defaults here are the only ones: the table of keys, the sample file and the manual follow them. Paths,
    addresses and names are texts as written; whether they exist is found out by whoever uses them.
    """

    relocation_server: bool = True
    relocation_port: int = 8002
    relocation_address: str = ""  # empty: all addresses
    hosts_allow: tuple[str, ...] = (r"^localhost$", r"^localhost\.localdomain$")  # empty: nobody
    firewall: FirewallMode = FirewallMode.CHECK
    tls: TlsMode = TlsMode.PREFER
    tls_ca: str = "/etc/relocd/tls/ca.pem"
    tls_certificate: str = "/etc/relocd/tls/host.pem"
    tls_key: str = "/etc/relocd/tls/host.key"
    l2: L2Mode = L2Mode.REQUIRE
    tunnel_port: int = 4789  # RFC 7348, section 8
    lanes: int | None = None  # None: as many as hosts and link are good for
    channels: int | None = None  # None: where they gain something
    compression: Compression = Compression.AUTO
    max_bandwidth_bytes_s: int = 0  # of one relocation; 0: no limit
    host_bandwidth_bytes_s: int = 0  # of all that leave together; 0: no limit
    downtime_ms: int = 20  # measured: the blackout is 53 to 64 ms with 20, 186 ms with 300
    max_downtime_ms: int = 300
    max_duration_s: float = 0.0  # 0: no limit
    max_rounds: int = 0  # 0: no limit
    throttle: bool = False
    direct_placement: bool = True
    switchover_timeout_s: float = 10.0
    connect_timeout_s: float = 10.0
    handshake_timeout_s: float = 5.0
    lookup_timeout_s: float = 2.0
    idle_timeout_s: float = 60.0
    max_incoming: int = 4
    max_outgoing: int = 16
    outgoing_at_once: int | None = None  # None: as many as the processors are good for
    max_connections: int = 64
    max_connections_per_host: int = 32
    max_handshakes: int = 48
    boot_file_limit_bytes: int = 256 * MIB
    boot_store_limit_bytes: int = 2048 * MIB
    disk_paths: tuple[str, ...] = ("/dev", "/var/lib/xen/images", "/var/lib/libvirt/images", "/srv")
    driver: str = "qemu"
    qemu_binary: str = "qemu-system-x86_64"
    qemu_accelerator: AcceleratorChoice = AcceleratorChoice.AUTO
    qemu_machine: str = "q35"
    qemu_user: str = QEMU_USER
    qemu_cpu: str = ""  # empty: the driver's default model
    console_limit_kib: int = 1024
    dom0_min_mem_mib: int = 256
    loglevel: LogLevel = LogLevel.INFO
    logfile: str = ""  # empty: stderr
