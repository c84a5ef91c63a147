r"""The table of all settings: what each is called, which field of Config it sets, what may be written, why.

The sample file and the manual page are made from this table (:mod:`relocd.config.document`), so the help here is
written for administrators. Defaults come from Config.
"""

from __future__ import annotations

import re
from typing import Any

from attrs import fields_dict, frozen

from relocd.config.kinds import Choice, Flag, Kind, OrAuto, Seconds, Text, Whole, Words
from relocd.config.model import (
    MIB,
    AcceleratorChoice,
    Compression,
    Config,
    FirewallMode,
    L2Mode,
    LogLevel,
    TlsMode,
)
from relocd.patterns import compile_pattern

_NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}"
_FILE = r"/[^\x00-\x1f\x7f]+"


@frozen
class Key:
    """One setting. ``help`` is one paragraph for administrators."""

    name: str
    field: str
    kind: Kind
    help: str

    @property
    def default(self) -> Any:
        """The value of the field if the setting is absent."""
        return fields_dict(Config)[self.field].default

    @property
    def default_text(self) -> str:
        """The default as it is written in the file."""
        return self.kind.show(self.default)

    @property
    def aliases(self) -> tuple[str, ...]:
        """Other names that are understood: what begins with ``xen-`` may begin with ``xend-`` as well."""
        return (f"xend-{self.name.removeprefix('xen-')}",) if self.name.startswith("xen-") else ()


@frozen
class Section:
    """Settings that belong together, with a word about them."""

    title: str
    intro: str
    keys: tuple[Key, ...]


def _check_directory(path: str) -> None:
    if not re.fullmatch(r"/[^,]*", path) or ".." in path.split("/") or not path.isprintable():
        raise ValueError(f"must hold absolute directories without '..' and commas, not {path!r}")


SECTIONS = (
    Section(
        "The relocation port",
        "Other hosts send domains to this port, and this host sends to the same port of others.",
        (
            Key(
                "xen-relocation-server",
                "relocation_server",
                Flag(),
                "Whether this host listens for domains from other hosts. If not, it can still send its own.",
            ),
            Key(
                "xen-relocation-port",
                "relocation_port",
                Whole(1, 65535),
                "The TCP port to listen on. It is also the port that this host connects to on others unless a "
                "command names one, so use the same on all hosts. Open it in the firewall for those hosts only "
                "(or see xen-relocation-firewall).",
            ),
            Key(
                "xen-relocation-address",
                "relocation_address",
                Text(r"[A-Za-z0-9_.:%-]{0,253}", "an IP address or host name of this host, or empty"),
                "The address to listen on. Empty means all. Name the address on the network that is kept for "
                "relocations, if there is one: without TLS nothing that is sent there is encrypted, the memory of "
                "domains included.",
            ),
        ),
    ),
    Section(
        "Who and what may come in",
        "Whoever may send a domain here decides what runs in it. Let in the hosts you trust, and no others.",
        (
            Key(
                "xen-relocation-hosts-allow",
                "hosts_allow",
                Words("regular expressions, separated by white space", compile_pattern),
                "The hosts that may connect. Each expression must match the peer's IP address in full, or the name "
                "that the address leads to, provided that the name leads back to the address. In quotes write a "
                r"backslash twice: '^hosta\\.example\\.org$ ^192\\.0\\.2\\.[0-9]+$'. Empty lets in nobody; everyone "
                "is '.*', which belongs on a closed network. Expressions that could take very long are refused.",
            ),
            Key(
                "xen-relocation-firewall",
                "firewall",
                Choice(FirewallMode),
                "What to do about this host's packet filter. With check relocd looks, at start, whether the hosts "
                "above can reach the relocation port, and says so in the log; 'relocctl firewall' says it at any "
                "time. It changes nothing. With manage it also lets them in and refuses everybody else on that port, "
                "and takes that back when it stops. With off it leaves the packet filter alone.",
            ),
            Key(
                "xen-relocation-disk-paths",
                "disk_paths",
                Words("directories, separated by white space", _check_directory),
                "The directories in which a domain from another host may have its disks, at any depth. A domain that "
                "names a file or device elsewhere is refused. Empty means that only domains without disks may come.",
            ),
        ),
    ),
    Section(
        "TLS",
        "Certificates prove which host is at the other end, and nobody on the way can read or change what is sent. "
        "'relocctl tls' makes and installs them: docs/tls.md.",
        (
            Key(
                "xen-relocation-tls",
                "tls",
                Choice(TlsMode),
                "With require only hosts that prove themselves may send domains here, and this host sends to no "
                "others. With prefer that holds for hosts that have a certificate, too; others are spoken to without "
                "encryption, and so is everybody as long as none is installed here. An attacker on the way can make "
                "prefer do without: use it while certificates are being handed out, then require on all hosts.",
            ),
            Key(
                "xen-relocation-tls-ca",
                "tls_ca",
                Text(_FILE, "an absolute path"),
                "The certificate of the authority that issues the certificates of all hosts, as PEM.",
            ),
            Key(
                "xen-relocation-tls-certificate",
                "tls_certificate",
                Text(_FILE, "an absolute path"),
                "The certificate of this host, as PEM. A reload reads it again, after a renewal.",
            ),
            Key(
                "xen-relocation-tls-key",
                "tls_key",
                Text(_FILE, "an absolute path"),
                "The private key that belongs to it, as PEM without a password, readable for root only.",
            ),
        ),
    ),
    Section(
        "The network that domains come back to",
        "A domain keeps its addresses, so its bridges on both hosts must belong to one network segment. A frame is "
        "sent from bridge to bridge, and back, before anything moves: docs/network.md.",
        (
            Key(
                "xen-relocation-l2",
                "l2",
                Choice(L2Mode),
                "What to do if no frame comes through. With require the relocation is refused. With warn it is only "
                "said, and nobody may reach the domain afterwards. With tunnel, on both hosts, relocd joins the two "
                "bridges with a VXLAN tunnel, for as long as a domain needs it. Of two hosts that differ, the "
                "stricter setting counts.",
            ),
            Key(
                "xen-relocation-tunnel-port",
                "tunnel_port",
                Whole(1, 65535),
                "The UDP port of such tunnels, on both hosts. The firewalls have to let it through.",
            ),
        ),
    ),
    Section(
        "How domains move",
        "The defaults are meant for networks of 1 to 10 Gbit/s.",
        (
            Key(
                "xen-relocation-lanes",
                "lanes",
                OrAuto(Whole(1, 15)),
                "How many connections carry the pages of one relocation. With auto it is one for each 2.5 Gbit/s of "
                "the link, and at most one for every two processors: the link's speed is what the network interface "
                "says, and where it says nothing, two are taken. More of them help on links with a long round trip. "
                "The smaller number of the two hosts counts.",
            ),
            Key(
                "xen-relocation-channels",
                "channels",
                OrAuto(Whole(0, 8)),
                "Over how many channels the hypervisor itself sends a domain's memory, compressed by threads of its "
                "own, which takes far less time and processor than having others look at the pages. With auto they "
                "are 4, and none on a link of less than 1 Gbit/s or under a limit of less than 100 MiB/s, where too "
                "much would be under way when the domain is paused. Both hosts must have the same version of a QEMU "
                "that has multifd with zstd; with others, and with 0, relocd compresses and places pages by itself, "
                "and the settings for lanes, compression and direct placement count. The smaller number of the two "
                "hosts counts.",
            ),
            Key(
                "xen-relocation-compression",
                "compression",
                Choice(Compression),
                "Whether pages are compressed. With auto it is decided for each batch of pages, by comparing the "
                "link with what the processors can do: none on a fast link, stronger compression on a slow one.",
            ),
            Key(
                "xen-relocation-max-bandwidth",
                "max_bandwidth_bytes_s",
                Whole(0, 1048576, "MiB/s", MIB),
                "How much of the network one outgoing relocation may take, counted as bytes on the wire. "
                "0 means no limit; a command may ask for less, never for more. A relocation that is held back takes "
                "longer, and may never catch up with a domain that changes its memory faster than that.",
            ),
            Key(
                "xen-relocation-host-bandwidth",
                "host_bandwidth_bytes_s",
                Whole(0, 1048576, "MiB/s", MIB),
                "How much of the network all outgoing relocations of this host may take together. They get equal "
                "shares, and what one may not use by its own limit goes to the others. 0 means no limit.",
            ),
            Key(
                "xen-relocation-downtime",
                "downtime_ms",
                Whole(1, 60000, "ms"),
                "The pause to aim for at the end of a live relocation. Memory that the domain changes meanwhile is "
                "sent again, round after round, until the rest fits into this time. It is an aim, not a promise.",
            ),
            Key(
                "xen-relocation-max-downtime",
                "max_downtime_ms",
                Whole(1, 60000, "ms"),
                "How far the aim may be raised, step by step, for a domain that changes its memory so fast that the "
                "rounds do not get any smaller. A command may allow less, never more. Raise it for domains whose "
                "relocations do not come to an end.",
            ),
            Key(
                "xen-relocation-throttle",
                "throttle",
                Flag(),
                "Whether a domain may be slowed down when its rounds do not get any smaller, though the pause to aim "
                "for is at its maximum: its processors then get less and less time, down to a twentieth, until the "
                "relocation ends. Without it a domain works at full speed up to the pause, and a relocation that "
                "does not come to an end goes on until a limit or somebody ends it.",
            ),
            Key(
                "xen-relocation-max-duration",
                "max_duration_s",
                Seconds(0, 604800),
                "How long a relocation may take until it is decided. After that it is given up, and the domain goes "
                "on here. 0 means no limit; a command may ask for less, never for more.",
            ),
            Key(
                "xen-relocation-max-rounds",
                "max_rounds",
                Whole(0, 100000),
                "How many rounds a live relocation may take. After the last one it ends with the longest pause "
                "allowed if that is enough; if not it is given up, and the domain goes on here. 0 means no limit.",
            ),
            Key(
                "xen-relocation-direct-placement",
                "direct_placement",
                Flag(),
                "Whether the memory of an arriving domain is written straight into its place, which is faster. The "
                "process that does it can write nothing else of the hypervisor. With no, the hypervisor loads it.",
            ),
        ),
    ),
    Section(
        "Patience",
        "How long this host waits for others. A relocation that fails leaves the domain running where it was.",
        (
            Key(
                "xen-relocation-switchover-timeout",
                "switchover_timeout_s",
                Seconds(1, 600),
                "How long the domain may stand still at the end of a relocation before the target has everything. "
                "After that this host gives up and lets the domain go on here.",
            ),
            Key(
                "xen-relocation-connect-timeout",
                "connect_timeout_s",
                Seconds(0.1, 600),
                "How long to wait for a connection to another host.",
            ),
            Key(
                "xen-relocation-handshake-timeout",
                "handshake_timeout_s",
                Seconds(0.1, 60),
                "How long a host that has connected may take, in all, until it has introduced itself: the lookup of "
                "its name, TLS and its first message. Sending a byte now and then does not make it longer.",
            ),
            Key(
                "xen-relocation-lookup-timeout",
                "lookup_timeout_s",
                Seconds(0.1, 60),
                "How long to wait for the name of a host that has connected. Without a name only its address counts.",
            ),
            Key(
                "xen-relocation-idle-timeout",
                "idle_timeout_s",
                Seconds(1, 3600),
                "How long a peer may stay silent during a relocation before it is taken for lost, and how long one "
                "that has introduced itself may take until it proposes something. Only whole messages count. A "
                "source whose lanes bring nothing for so long, and for half a minute, is given up as well.",
            ),
        ),
    ),
    Section(
        "Limits",
        "What may be asked of this host. What exceeds a limit is refused and can be tried later.",
        (
            Key(
                "xen-relocation-max-incoming",
                "max_incoming",
                Whole(0, 64),
                "How many domains may be arriving at once. 0 refuses all.",
            ),
            Key(
                "xen-relocation-max-outgoing",
                "max_outgoing",
                Whole(0, 64),
                "How many domains may be leaving at once, those included that wait for their turn. 0 refuses all.",
            ),
            Key(
                "xen-relocation-outgoing-at-once",
                "outgoing_at_once",
                OrAuto(Whole(1, 64)),
                "How many of the domains that leave may move at the same time; the others wait for their turn, and "
                "run on. With auto it is one for every two processors: more of them would be slower together than "
                "one after another, and their pauses longer.",
            ),
            Key(
                "xen-relocation-max-connections",
                "max_connections",
                Whole(1, 10000),
                "How many connections of allowed hosts to the relocation port may be open at once. An arriving "
                "domain needs one all the time, and one more for a moment while its lanes are opened. Hosts whose "
                "names are still being looked up do not count: there is a small place apart for them.",
            ),
            Key(
                "xen-relocation-max-connections-per-host",
                "max_connections_per_host",
                Whole(1, 10000),
                "How many of them may come from one address (for IPv6, from one /64), so that no single host takes "
                "the place of all others. Not less than the domains that one host may send at once, and a few.",
            ),
            Key(
                "xen-relocation-max-handshakes",
                "max_handshakes",
                Whole(1, 10000),
                "How many of them may be at their beginning: connected, and not introduced yet. The rest is kept for "
                "hosts that have something to say.",
            ),
            Key(
                "xen-relocation-boot-file-limit",
                "boot_file_limit_bytes",
                Whole(1, 65536, "MiB", MIB),
                "How large a kernel or ramdisk may be that comes with a domain.",
            ),
            Key(
                "xen-relocation-boot-store-limit",
                "boot_store_limit_bytes",
                Whole(1, 1048576, "MiB", MIB),
                "How much room all kernels and ramdisks of domains may take in the state directory. Each file is "
                "kept once, however many domains use it.",
            ),
        ),
    ),
    Section(
        "The hypervisor",
        "",
        (
            Key(
                "driver",
                "driver",
                Text(_NAME, "the name of an installed driver"),
                "Which hypervisor runs the domains of this host.",
            ),
            Key(
                "qemu-binary",
                "qemu_binary",
                Text(r"/?[A-Za-z0-9_.+-]+(/[A-Za-z0-9_.+-]+)*", "a command or an absolute path"),
                "The QEMU to start, by its name in the search path or its absolute path.",
            ),
            Key(
                "qemu-accelerator",
                "qemu_accelerator",
                Choice(AcceleratorChoice),
                "How QEMU executes new domains: kvm with the processor's help, tcg by translation. With auto it is "
                "kvm where /dev/kvm can be used. A domain keeps what it was started with and can only move to hosts "
                "that have the same.",
            ),
            Key(
                "qemu-machine",
                "qemu_machine",
                Text(_NAME, "a machine type of this QEMU"),
                "The machine type of new domains that name none. An alias such as q35 stands for the newest version "
                "that this QEMU knows; name an older one (pc-q35-7.2) if domains must be able to move to hosts with "
                "an older QEMU.",
            ),
            Key(
                "qemu-user",
                "qemu_user",
                Text(_NAME, "the name of a user of this host"),
                "The user that QEMU becomes once it has opened disks, network and consoles as root, so that whoever "
                "breaks out of a guest is not root. Images need not belong to that user. `root` leaves it root. The "
                "default user need not exist: QEMU stays root then, which the log says; "
                "`useradd --system relocd-qemu` makes it. It is in use for domains that start or arrive after the "
                "next start of relocd.",
            ),
            Key(
                "qemu-cpu",
                "qemu_cpu",
                Text(rf"({_NAME})?", "a CPU model of this QEMU, or empty"),
                "The CPU model of new domains that name none. Empty leaves the choice to the driver, which takes a "
                "model that any host with the same accelerator has.",
            ),
        ),
    ),
    Section(
        "This host",
        "",
        (
            Key(
                "dom0-min-mem",
                "dom0_min_mem_mib",
                Whole(0, 1048576, "MiB"),
                "The memory that is left to the host itself. A domain that would eat into it is not let in.",
            ),
            Key(
                "console-limit",
                "console_limit_kib",
                Whole(1, 1048576, "KiB"),
                "How much of each domain's console output is kept.",
            ),
            Key(
                "loglevel",
                "loglevel",
                Choice(LogLevel, {"warning": "warn", "fatal": "critical"}),
                "The least important messages to log.",
            ),
            Key(
                "logfile",
                "logfile",
                Text(r"(/[^\x00-\x1f\x7f]+)?", "an absolute path, or empty"),
                "The file to log to. Empty means standard error, which systemd keeps in its journal.",
            ),
        ),
    ),
)

KEYS = tuple(key for section in SECTIONS for key in section.keys)
BY_NAME = {name: key for key in KEYS for name in (key.name, *key.aliases)}
