"""Two hosts, a client and the switch between them, on one machine: network namespaces joined by veth pairs.

hosta                      switch                      hostb
xenbr0 10.77.0.1/24        br0                         xenbr0 10.77.0.2/24
  |- uplink ------------- hosta |                        |- uplink
  |- taps of guests             |- hostb ---------------'|- taps of guests
                                |
                              client ---------------- uplink 10.77.0.100/24   (client)
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType, TracebackType
from typing import IO, Any

from attrs import define, field, frozen

from . import namespaces
from .commands import TestbedError, run
from .processes import stop_child

BRIDGE = "xenbr0"
UPLINK = "uplink"
SUBNET = "10.77.0"
GUEST_IP = f"{SUBNET}.10"
PREFIX_LENGTH = 24
HOSTS = {"hosta": 1, "hostb": 2}  # name -> last part of the address, and of the bridge's MAC
CLIENT_NUMBER = 100
ROUTED_SUBNET = "10.78.0"  # of host b, once it is split off
GATEWAY_NUMBER = 254


@define
class Host:
    """A namespace of the testbed: ``hosta``, ``hostb``, ``client`` or ``switch`` (which has no address)."""

    name: str
    netns: str
    address: str
    _children: list[subprocess.Popen[bytes]] = field(factory=list, repr=False)

    def argv(self, command: Sequence[str | Path]) -> list[str]:
        """The command line that runs ``command`` inside."""
        return ["ip", "netns", "exec", self.netns, *(str(word) for word in command)]

    def run(
        self, command: Sequence[str | Path], *, text_in: str | None = None, timeout_s: float = 120
    ) -> str:
        """Run a command inside to its end and return its output. Raises TestbedError if it fails."""
        return run(self.argv(command), text_in=text_in, timeout_s=timeout_s)

    def popen(
        self,
        command: Sequence[str | Path],
        *,
        stdin: int | IO[Any] | None = subprocess.DEVNULL,
        stdout: int | IO[Any] | None = None,
        stderr: int | IO[Any] | None = None,
        env: dict[str, str] | None = None,
        pass_fds: Sequence[int] = (),
    ) -> subprocess.Popen[bytes]:
        """Start a command inside, in its own session; it is stopped at the latest when the testbed goes."""
        child = subprocess.Popen(
            self.argv(command),
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            env=None if env is None else {**os.environ, **env},
            pass_fds=pass_fds,
            start_new_session=True,
        )
        self._children.append(child)
        return child

    def pids(self) -> list[int]:
        """Every process that lives here, whoever started it."""
        return namespaces.pids_in(self.netns)

    def links(self, kind: str) -> list[str]:
        """Names of the interfaces of one kind (``tun``, ``bridge``, ``vxlan``, ...) here."""
        return self._links("type", kind)

    def ports(self) -> list[str]:
        """Names of what is plugged into the bridge of a host."""
        return self._links("master", BRIDGE)

    def _links(self, *chosen: str) -> list[str]:
        lines = run(["ip", "-n", self.netns, "-br", "link", "show", *chosen]).splitlines()
        return [line.split()[0].partition("@")[0] for line in lines]

    def add_tap(self, name: str) -> None:
        """A tap on the bridge, for a guest that is not started by relocd. Its MAC is high: the bridge's stays."""
        commands = [
            f"tuntap add {name} mode tap",
            f"link set {name} address fe:{os.urandom(5).hex(':')} master {BRIDGE} up",
        ]
        ip_batch(self.netns, commands)

    @property
    def children(self) -> list[subprocess.Popen[bytes]]:
        """Everything that ``popen`` started."""
        return list(self._children)

    def stop_children(self) -> None:
        """Stop everything that ``popen`` started and that still runs."""
        while self._children:
            stop_child(self._children.pop())


@frozen
class Shape:
    """A limit of both uplinks in both directions, as tc-tbf(8) takes it."""

    rate: str = "1gbit"
    burst: str = "1mb"
    latency: str = "50ms"


class Testbed:
    """The network, as a context manager: built on entry, removed on exit with everything that runs in it.

    Several can exist at once. SIGTERM ends the program as SystemExit while one is open, so that it is removed too;
    what a killed run left is removed when the next testbed starts, or by ``python -m tests.testbed clean``.
    """

    __test__ = False

    def __init__(self, shape: Shape | None = None) -> None:
        prefix = namespaces.new_prefix()
        self._shape = shape
        self._undo = contextlib.ExitStack()
        self.switch = Host("switch", f"{prefix}-switch", "")
        self.hosta, self.hostb = (
            Host(name, f"{prefix}-{name}", f"{SUBNET}.{n}") for name, n in HOSTS.items()
        )
        self.client = Host("client", f"{prefix}-client", f"{SUBNET}.{CLIENT_NUMBER}")

    @property
    def hosts(self) -> tuple[Host, Host]:
        """The two virtualisation hosts."""
        return self.hosta, self.hostb

    def __enter__(self) -> Testbed:
        if os.geteuid() != 0:
            raise TestbedError("network namespaces need root")
        namespaces.remove_leftovers()
        with contextlib.ExitStack() as undo:
            undo.enter_context(_sigterm_as_exit())
            self._build(undo)
            if self._shape:
                self.shape(self._shape)
            self._undo = undo.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._undo.close()

    def shape(self, shape: Shape | None = None) -> None:
        """Limit the uplinks of both hosts, in both directions. Replaces an earlier limit."""
        limit = shape or Shape()
        words = ["tbf", "rate", limit.rate, "burst", limit.burst, "latency", limit.latency]
        for netns, device in self._uplink_ends():
            run(["tc", "-n", netns, "qdisc", "replace", "dev", device, "root", *words])

    def unshape(self) -> None:
        """Take the limit away; nothing happens if there is none."""
        for netns, device in self._uplink_ends():
            if " tbf " in f" {run(['tc', '-n', netns, 'qdisc', 'show', 'dev', device])}":
                run(["tc", "-n", netns, "qdisc", "delete", "dev", device, "root"])

    def cut(self, host: Host) -> None:
        """Cut a host off, as a pulled cable at the switch does: what it sends is lost, and nothing tells it so."""
        ip_batch(self.switch.netns, [f"link set {host.name} nomaster"])

    def heal(self, host: Host) -> None:
        """Undo ``cut``."""
        ip_batch(self.switch.netns, [f"link set {host.name} master br0"])

    def split(self) -> None:
        """Put host b into a subnet of its own: the switch becomes the router between it and the rest, for good."""
        gateway, routed = f"{SUBNET}.{GATEWAY_NUMBER}", f"{ROUTED_SUBNET}.{GATEWAY_NUMBER}"
        self.hostb.address = f"{ROUTED_SUBNET}.{HOSTS['hostb']}"
        commands = [f"link set {self.hostb.name} nomaster"]
        commands += [f"address add {gateway}/{PREFIX_LENGTH} dev br0"]
        commands += [f"address add {routed}/{PREFIX_LENGTH} dev {self.hostb.name}"]
        ip_batch(self.switch.netns, commands)
        self.switch.run(["sysctl", "-qw", "net.ipv4.ip_forward=1"])
        ip_batch(self.hosta.netns, [f"route add default via {gateway}"])
        address = f"address add {self.hostb.address}/{PREFIX_LENGTH} dev {BRIDGE}"
        ip_batch(
            self.hostb.netns, [f"address flush dev {BRIDGE}", address, f"route add default via {routed}"]
        )

    def _uplink_ends(self) -> Iterator[tuple[str, str]]:
        for host in self.hosts:
            yield host.netns, UPLINK
            yield self.switch.netns, host.name

    def _build(self, undo: contextlib.ExitStack) -> None:
        for host in (self.switch, *self.hosts, self.client):
            run(["ip", "netns", "add", host.netns])
            undo.callback(namespaces.remove, host.netns)
            undo.callback(host.stop_children)
        _quiet_ipv6(self.switch, "all", "default")
        ip_batch(self.switch.netns, ["link set lo up", _bridge("br0", 0), "link set br0 up"])
        for host in self.hosts:
            self._connect(host)
            address = f"{host.address}/{PREFIX_LENGTH}"
            bridge = _bridge(BRIDGE, HOSTS[host.name])
            attach = f"link set {UPLINK} master {BRIDGE} up"
            ip_batch(
                host.netns, [bridge, attach, f"address add {address} dev {BRIDGE}", f"link set {BRIDGE} up"]
            )
        self._connect(self.client)
        address = f"{self.client.address}/{PREFIX_LENGTH}"
        ip_batch(self.client.netns, [f"address add {address} dev {UPLINK}", f"link set {UPLINK} up"])

    def _connect(self, host: Host) -> None:
        """Join a host's uplink to the switch. Both ends are born inside: no name of theirs is ever seen outside."""
        peer = f"type veth peer name {host.name} netns {self.switch.netns}"
        ip_batch(host.netns, ["link set lo up", f"link add {UPLINK} {peer}"])
        _quiet_ipv6(host, UPLINK)
        ip_batch(self.switch.netns, [f"link set {host.name} master br0 up"])


def ip_batch(netns: str, commands: Sequence[str]) -> None:
    """Several commands of ip(8) inside a namespace, in one process."""
    run(["ip", "-n", netns, "-batch", "-"], text_in="\n".join(commands))


def _bridge(name: str, number: int) -> str:
    """A bridge with a fixed MAC: else it takes the lowest of its ports, and a new tap makes peers lose it."""
    mac = f"02:52:4c:4f:00:{number:02x}"
    return f"link add {name} address {mac} type bridge stp_state 0 forward_delay 0 mcast_snooping 0"


def _quiet_ipv6(host: Host, *devices: str) -> None:
    """No router solicitations and duplicate address checks on ports, which only would disturb measurements."""
    host.run(["sysctl", "-qw", *(f"net.ipv6.conf.{device}.disable_ipv6=1" for device in devices)])


@contextlib.contextmanager
def _sigterm_as_exit() -> Iterator[None]:
    """Let SIGTERM unwind the stack, as Ctrl-C does, instead of ending the program on the spot."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    former = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, former)
