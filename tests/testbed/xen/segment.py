"""Two Xen hosts and a client on one network segment, each host out of a snapshot within seconds."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import inspect
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

from .. import namespaces
from ..commands import run
from ..network import CLIENT_NUMBER, PREFIX_LENGTH, SUBNET, Host, ip_batch
from . import host
from .host import XenHost, new_disk
from .image import HOST_ALIAS, XenImage, build_xen_image

NUMBERS = (1, 2)
_BRIDGE = "client0"
_BRIDGE_MAC = "02:52:4c:58:00:64"


class Segment:
    """The network, a namespace with one bridge; the client is the namespace itself. A context manager."""

    def __init__(self) -> None:
        self.client = Host("xen-client", f"{namespaces.new_prefix()}-xen", f"{SUBNET}.{CLIENT_NUMBER}")

    def __enter__(self) -> Segment:
        netns = self.client.netns
        run(["ip", "netns", "add", netns])
        self.client.run(
            ["sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1", "net.ipv6.conf.default.disable_ipv6=1"]
        )
        bridge = f"link add {_BRIDGE} address {_BRIDGE_MAC} type bridge stp_state 0 forward_delay 0 mcast_snooping 0"
        address = f"address add {self.client.address}/{PREFIX_LENGTH} dev {_BRIDGE}"
        ip_batch(netns, ["link set lo up", bridge, address, f"link set {_BRIDGE} up"])
        for number in NUMBERS:
            tap = f"xen{number}"
            commands = [f"tuntap add {tap} mode tap", f"link set {tap} address fe:52:4c:58:00:0{number}"]
            ip_batch(netns, [*commands, f"link set {tap} master {_BRIDGE} up"])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.client.stop_children()
        namespaces.remove(self.client.netns)

    def cut(self) -> None:
        """Nothing passes between the two hosts any more; the client still reaches both."""
        self._isolate("on")

    def heal(self) -> None:
        """Undo ``cut``."""
        self._isolate("off")

    def _isolate(self, state: str) -> None:
        for number in NUMBERS:
            run(["bridge", "-n", self.client.netns, "link", "set", "dev", f"xen{number}", "isolated", state])


class XenPair:
    """Both hosts, ready for commands. A context manager; ``only`` one of them for what needs no other."""

    def __init__(self, *, only: int | None = None) -> None:
        self._numbers = NUMBERS if only is None else (only,)
        self.segment = Segment()
        self.hosts: dict[int, XenHost] = {}
        self._undo = contextlib.ExitStack()

    @property
    def a(self) -> XenHost:
        """The first host."""
        return self.hosts[1]

    @property
    def b(self) -> XenHost:
        """The second host."""
        return self.hosts[2]

    def __enter__(self) -> XenPair:
        image = build_xen_image()
        with contextlib.ExitStack() as undo:
            undo.enter_context(self.segment)
            with ThreadPoolExecutor() as pool:
                made = pool.map(lambda number: _frozen(image, self.segment, number), self._numbers)
                frozen = dict(zip(self._numbers, made, strict=True))
            scratch = Path(undo.enter_context(tempfile.TemporaryDirectory(prefix="relocd-xen-")))
            for number, (disk, state) in frozen.items():
                mine = new_disk(scratch / f"{number}.qcow2", disk, "qcow2")
                machine = XenHost(image, self.segment.client, number, mine, state)
                self.hosts[number] = undo.enter_context(machine)
            self._undo = undo.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._undo.close()

    def trust(self) -> None:
        """Let root of each host log in to the other by ssh, as stock ``xl migrate`` wants it."""
        for machine in self.hosts.values():
            machine.put(machine.image.ssh_key, "/root/.ssh")
            machine.put(machine.image.known_hosts, "/root/.ssh")
            settings = f"Host {SUBNET}.*\n  HostKeyAlias {HOST_ALIAS}\n  ConnectTimeout 60\n"
            machine.run("chmod 600 /root/.ssh/*; cat > /root/.ssh/config", data=settings.encode())


def _frozen(image: XenImage, segment: Segment, number: int) -> tuple[Path, Path]:
    """Disk and state of a host that has booted; it is booted now if that was never done."""
    # A frozen machine goes on only in one that is the same.
    hardware = inspect.getsource(XenHost.argv) + repr((host.CPU, host.MEMORY_MIB, host.DOM0_MIB))
    machine = hashlib.sha256(hardware.encode()).hexdigest()[:8]
    place = image.directory / f"host-{number}-{machine}"
    disk, state = place.with_suffix(".qcow2"), place.with_suffix(".state")
    with place.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not state.exists():
            _boot_once(image, segment, number, disk, state)
    return disk, state


def _boot_once(image: XenImage, segment: Segment, number: int, disk: Path, state: Path) -> None:
    disk.unlink(missing_ok=True)
    unfinished = state.with_suffix(".new")
    with XenHost(image, segment.client, number, new_disk(disk, image.disk, "raw")) as machine:
        machine.run("systemctl is-system-running --wait || true; xl info; xl list", timeout_s=400)
        machine.freeze(unfinished)
    unfinished.rename(state)
