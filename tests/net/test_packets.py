"""Probes, announcements and first frames on real devices, in network namespaces of their own."""

from __future__ import annotations

import contextlib
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address

import pytest
from pyroute2 import IPRoute

from relocd.net import probing
from relocd.net.packet import device_address, device_is_up, open_packets
from relocd.net.sniffing import first_frame, open_watch
from relocd.segment.announce import advertisement, gratuitous_arp
from relocd.segment.probe import Kind
from relocd.segment.proof import EndState
from tests.net.namespace import add_bridge, private_network

pytestmark = pytest.mark.netns

GUEST = bytes.fromhex("00163e5a0010")
KEY = bytes(32)
WAIT_S = 0.3
PATIENCE_S = 10.0
EVERY_PROTOCOL = 0x0003  # linux/if_ether.h, ETH_P_ALL


@pytest.fixture
def network() -> Iterator[IPRoute]:
    """Bridges br0 and br1, each with one end of a cable."""
    with private_network():
        add_bridge("br0")
        add_bridge("br1")
        with IPRoute() as route:
            route.link("add", ifname="p0", kind="veth", peer={"ifname": "p1"})
            for port, bridge in (("p0", "br0"), ("p1", "br1")):
                index = socket.if_nametoindex(port)
                route.link("set", index=index, master=socket.if_nametoindex(bridge), state="up")
            yield route


@contextlib.contextmanager
def answering(name: str) -> Iterator[None]:
    """Answer probes on a bridge, as a target does."""
    ends = probing.open_ends([name], [name])
    stop, sock = threading.Event(), ends.sockets[name]

    def work() -> None:
        while not stop.is_set():
            readable, _, _ = select.select([sock], [], [], 0.02)
            if readable and Kind.ASK in probing.received(sock, KEY, "br0"):
                probing.answer(sock, KEY, "br0")

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        ends.close()


def asked(key: bytes = KEY, wait_s: float = WAIT_S) -> frozenset[str]:
    ends = probing.open_ends(["br0"], ["br0", "br1"])
    try:
        return probing.ask(ends.sockets, key, wait_s).answers
    finally:
        ends.close()


def test_a_probe_comes_back_over_a_cable_and_not_without_one(network: IPRoute) -> None:
    """The other end stands for a bridge of the same name on another host, so it answers by that name."""
    rename(network, "br1")
    with answering("br1"):
        assert asked(wait_s=PATIENCE_S) == {"br0"}  # it returns with the answer
        assert asked(bytes(31) + b"x") == set()  # of another dialogue
        network.link("set", index=socket.if_nametoindex("p0"), state="down")
        assert asked() == set()


def test_frames_that_go_round_are_noticed(network: IPRoute) -> None:
    """Both ends of the cable in one bridge are a ring, a slow one here."""
    ends = probing.open_ends(["br0"], ["br0", "br1"])
    assert probing.ask(ends.sockets, KEY, WAIT_S).echoes == set()
    index = socket.if_nametoindex("p0")
    network.tc("add", "tbf", index=index, rate="800kbit", burst=2000, latency="20ms")
    network.link("set", index=socket.if_nametoindex("p1"), master=socket.if_nametoindex("br0"))
    heard = probing.Heard()
    deadline = time.monotonic() + PATIENCE_S
    while not heard.echoes and time.monotonic() < deadline:
        heard = probing.ask(ends.sockets, KEY, WAIT_S)
    network.link("set", index=index, state="down")
    ends.close()
    assert (heard.answers, heard.echoes) == (set(), {"br0"})


def rename(network: IPRoute, bridge: str) -> None:
    """A second device cannot have the same address on one host; give it another one."""
    network.link("set", index=socket.if_nametoindex(bridge), address="02:00:00:00:00:02")


def test_ends_say_what_they_are(network: IPRoute) -> None:
    network.addr("add", index=socket.if_nametoindex("br0"), address="10.1.0.1", prefixlen=24)
    network.addr("add", index=socket.if_nametoindex("br0"), address="2001:db8::1", prefixlen=64)
    network.link("set", index=socket.if_nametoindex("br1"), state="down")
    ends = probing.open_ends(["br0", "br1", "br9", "lo"], ["br0", "br1"])
    ends.close()
    up, down, absent, no_bridge = ends.ends
    assert (up.state, up.subnets) == (EndState.READY, ("10.1.0.0/24", "2001:db8::/64"))
    assert (down.state, down.text) == (EndState.DOWN, "br1 is down")
    assert (absent.state, no_bridge.state) == (EndState.ABSENT, EndState.ABSENT)
    assert up.identity != down.identity
    again = probing.open_ends(["br0"], ["br0"])
    again.close()
    assert again.ends[0].identity == up.identity


def test_devices_tell_address_and_state(network: IPRoute) -> None:
    assert device_address("br0") == bytes.fromhex("020000000001")
    assert device_is_up("br0")
    network.link("set", index=socket.if_nametoindex("br0"), state="down")
    assert not device_is_up("br0")
    with pytest.raises(OSError, match="No such device"):
        device_address("br9")


@pytest.mark.parametrize(
    ("address", "prefix_length", "own", "frame"),
    [
        ("10.1.0.7", 24, "10.1.0.1", gratuitous_arp(GUEST, IPv4Address("10.1.0.7"))),
        ("2001:db8::7", 64, "2001:db8::1", advertisement(GUEST, IPv6Address("2001:db8::7"))),
    ],
    ids=["arp", "na"],
)
def test_a_kernel_that_hears_an_announcement_believes_it(
    network: IPRoute, address: str, prefix_length: int, own: str, frame: bytes
) -> None:
    """It knew another MAC for that address; whatever is wrong with the frame, it would keep that."""
    index = socket.if_nametoindex("br1")
    network.addr("add", index=index, address=own, prefixlen=prefix_length, flags=2)  # IFA_F_NODAD
    network.neigh("add", dst=address, lladdr="02:00:00:00:00:99", ifindex=index, state="stale")
    sender = open_packets("br0", 0)
    deadline = time.monotonic() + PATIENCE_S
    while known_mac(network, index, address) != GUEST.hex(":"):
        assert time.monotonic() < deadline, "it is not believed"
        sender.send(
            frame
        )  # again: a new port of a bridge passes nothing on before the kernel has seen its carrier
        select.select([], [], [], 0.02)
    sender.close()


def known_mac(network: IPRoute, index: int, address: str) -> str:
    """What the kernel knows of a neighbour."""
    (entry,) = [one for one in network.get_neighbours(ifindex=index) if one.get("dst") == address]
    return str(entry.get("lladdr"))


def test_the_first_frame_of_a_guest_is_seen_where_its_port_is(network: IPRoute) -> None:
    network.link("set", index=socket.if_nametoindex("p1"), address="fe:16:3e:5a:00:10")
    watch = open_watch([GUEST])
    guest = open_packets("p0", 0)  # what it sends comes in by p1
    port = open_packets("p1", EVERY_PROTOCOL)  # the kernel gives a frame to the watch first

    def sent(source: bytes, kind: str) -> float | None:
        frame = bytes(6) + source + bytes.fromhex(kind) + bytes(46)
        guest.send(frame)
        while select.select([port], [], [], PATIENCE_S)[0]:
            if port.recv(2048) == frame:
                return first_frame(watch)
        raise AssertionError("the frame did not arrive")

    assert sent(b"\x02" + GUEST[1:], "0800") is None
    assert sent(GUEST, "8035") is None
    seen = sent(GUEST, "0800")
    assert seen is not None
    assert seen > 1.7e9
    network.link("set", index=socket.if_nametoindex("p1"), address="02:16:3e:5a:00:10")
    assert sent(GUEST, "0800") is None  # by an uplink
    for sock in (guest, port, watch):
        sock.close()


def test_without_the_right_to_send_a_bridge_says_so(network: IPRoute) -> None:
    """A daemon without CAP_NET_RAW; setpriv(1) is of util-linux."""
    program = (
        "from relocd.net.probing import open_ends\n"
        "(end,) = open_ends(['br0'], ['br0']).ends\n"
        "print(end.state.value, end.text)\n"
    )
    limits = ["setpriv", "--bounding-set=-net_raw", "--inh-caps=-net_raw"]
    done = subprocess.run(
        [*limits, sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "unable relocd may not open packet sockets (it needs CAP_NET_RAW)\n"
