"""What the network of a scene is told when a guest has moved."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterator
from ipaddress import ip_address

from tests.scene import GUEST_MAC, Scene
from tests.testbed.netns import in_netns
from tests.testbed.network import SUBNET, Host

#: Addresses that only the domain file knows of, not the guest: who speaks of them is relocd.
ONLY_TOLD_V4, ONLY_TOLD_V6 = f"{SUBNET}.77", "fd77::77"
ONLY_TOLD = f"{ONLY_TOLD_V4} {ONLY_TOLD_V6}"
_ALL_PROTOCOLS = 0x0003


def port_of_guest(scene: Scene) -> str:
    """Where the switch sends what is for the guest."""
    rows = json.loads(scene.network.switch.run(["bridge", "-j", "fdb", "show", "br", "br0"]))
    (port,) = [row["ifname"] for row in rows if row["mac"] == GUEST_MAC]
    return str(port)


@contextlib.contextmanager
def listening(host: Host) -> Iterator[socket.socket]:
    """Everything that comes in at a host."""
    with in_netns(host.netns):
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ALL_PROTOCOLS))
    with sock:
        sock.settimeout(30)
        yield sock


def next_announcement(frames: socket.socket) -> tuple[str, str]:
    """The next announcement of an address that only the domain file knows of: EtherType and address."""
    while True:
        frame = frames.recv(2048)
        if frame[6:12].hex(":") == GUEST_MAC:
            for address in (ONLY_TOLD_V4, ONLY_TOLD_V6):
                if ip_address(address).packed in (frame[28:32], frame[22:38]):
                    return frame[12:14].hex(), address
