"""Two Xen hosts with relocd as their system service, real guests, and clients that must not notice."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any

from tests.testbed.commands import TestbedError
from tests.testbed.image import GuestImage, build_image, guest_cmdline
from tests.testbed.memcheck import MemCheck, guest_stat
from tests.testbed.network import BRIDGE, PREFIX_LENGTH, SUBNET
from tests.testbed.sessions import TcpEchoSession
from tests.testbed.udp import UdpEchoClient
from tests.testbed.xen.host import XenHost
from tests.testbed.xen.install import Installed
from tests.testbed.xen.segment import XenPair

MEMORY_MIB = 112
BOOT_S = 180.0
KERNEL, RAMDISK = "/root/vmlinuz", "/root/initramfs.zst"
# A guest takes the only processor from dom0, which moves it: it is to do little, and not nothing.
GUEST_WORK = {"fill_mib": 16, "working_set_mib": 16, "dirty_mb_s": 0.2, "verify_mb_s": 1}


def _prepare(host: XenHost, image: GuestImage) -> Installed:
    host.run(f"cat > {KERNEL}", data=image.kernel.read_bytes())
    host.run(f"cat > {RAMDISK}", data=image.ramdisk.read_bytes())
    return Installed(host).install()


class XenScene:
    """A context manager; ``a`` and ``b`` run relocd."""

    def __init__(self) -> None:
        self._undo = contextlib.ExitStack()
        self.pair = XenPair()

    def __enter__(self) -> XenScene:
        image = build_image()
        with contextlib.ExitStack() as undo:
            undo.enter_context(self.pair)
            with ThreadPoolExecutor() as pool:
                self.a, self.b = pool.map(lambda host: _prepare(host, image), self.pair.hosts.values())
            self._undo = undo.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._undo.close()

    @property
    def netns(self) -> str:
        """Where the clients of the guests are."""
        return self.pair.segment.client.netns

    def start_guest(
        self,
        on: Installed,
        name: str,
        number: int,
        *,
        machine: str = "pvh",
        memory_mib: int = MEMORY_MIB,
        work: Mapping[str, Any] = GUEST_WORK,
        by_xl: bool = False,
    ) -> MemCheck:
        """Create a guest and wait until its memory is filled and being verified. One that is made ``by_xl`` is none
        of relocd's."""
        address = f"{SUBNET}.{number}/{PREFIX_LENGTH}"
        cmdline = guest_cmdline(address, hostname=name, **work).replace("console=ttyS0", "console=hvc0")
        lines = [
            f'name = "{name}"',
            f"memory = {memory_mib}",
            f'machine = "{machine}"',
            f'kernel = "{KERNEL}"',
            f'ramdisk = "{RAMDISK}"',
            f'extra = "{cmdline}"',
            f'vif = [ "mac=00:16:3e:58:00:{number:02x}, bridge={BRIDGE}, ip={SUBNET}.{number}" ]',
        ]
        on.host.run(f"cat > /root/{name}.cfg", data="\n".join([*lines, ""]).encode())
        if by_xl:
            on.host.run(f"xl create -e /root/{name}.cfg")
        else:
            on.relocctl("create", f"/root/{name}.cfg")
        return self.wait_guest(number, lambda stat: stat.full)

    def wait_guest(self, number: int, ready: Callable[[MemCheck], bool]) -> MemCheck:
        """Ask a guest until ``ready`` of its counters is true. Raises TestbedError."""
        deadline = time.monotonic() + BOOT_S
        while True:
            stat = self.stat(number, max(1.0, deadline - time.monotonic()))
            if ready(stat):
                return stat
            if time.monotonic() > deadline:
                raise TestbedError(f"the guest did not get there: {stat}")
            time.sleep(0.5)

    def stat(self, number: int, timeout_s: float = 60.0) -> MemCheck:
        """A guest's counters, asked over the network."""
        return guest_stat(self.netns, f"{SUBNET}.{number}", timeout_s=timeout_s)

    def udp(self, number: int) -> UdpEchoClient:
        """A client that sees blackouts."""
        return UdpEchoClient(self.pair.segment.client, f"{SUBNET}.{number}", interval_ms=50)

    def tcp(self, number: int) -> TcpEchoSession:
        """A connection that must survive."""
        return TcpEchoSession(self.netns, f"{SUBNET}.{number}", interval_s=0.2)
