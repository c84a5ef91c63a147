"""The network that a guest comes back to: one segment, two, and two that are joined."""

from __future__ import annotations

import contextlib
import json
import re
import socket
from collections.abc import Iterator
from ipaddress import ip_address

import pytest

from relocd.segment.announce import SCHEDULE_S
from tests.e2e.conftest import Witness
from tests.e2e.staging import wait_until
from tests.scene import GUEST_MAC, Scene
from tests.testbed.daemons import RelocdHost
from tests.testbed.netns import in_netns, socket_in
from tests.testbed.network import GUEST_IP, ROUTED_SUBNET, SUBNET, UPLINK, Host

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

ALLOW = {"xen-relocation-hosts-allow": rf"{re.escape(SUBNET)}\.[0-9]+ {re.escape(ROUTED_SUBNET)}\.[0-9]+"}

FULL_SIZE, ECHO_PORT = 1472, 7
ONLY_TOLD_V4, ONLY_TOLD_V6 = f"{SUBNET}.77", "fd77::77"


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    """Two hosts and a guest on host a, as for other tests; then host b moves behind a router."""
    with Scene(settings=ALLOW) as scene:
        addresses = f"{ONLY_TOLD_V4} {ONLY_TOLD_V6}"
        scene.start_guest(scene.a, more_ips=addresses, fill_mib=32, working_set_mib=16, dirty_mb_s=5)
        yield scene


def segment_check(source: RelocdHost, target: RelocdHost) -> dict[str, str]:
    """What a check alone says of the segment."""
    checks = source.relocctl("check", "guest", target.host.address, check=False).result["checks"]
    (found,) = [check for check in checks if check["check"] == "segment"]
    return found


def test_an_idle_guest_is_reached_at_once_and_the_network_is_told_of_its_addresses(
    scene: Scene, witness: Witness
) -> None:
    """The client knows the guest's MAC for good and the switch forgets nothing: only announcements can help."""
    switch, client = scene.network.switch, scene.client
    switch.run(["ip", "link", "set", "br0", "type", "bridge", "ageing_time", "100000"])
    client.run(["ip", "neigh", "replace", GUEST_IP, "lladdr", GUEST_MAC, "nud", "permanent", "dev", UPLINK])
    scene.stat()
    assert port_of_guest(scene) == "hosta"
    with listening(client) as frames:
        there = scene.a.relocctl("migrate", "--live", "guest", scene.b.host.address).result
        assert port_of_guest(scene) == "hostb"
        told = [frame_of_announcement(frames) for _ in range(2 * len(SCHEDULE_S))]
    assert set(told) == {("0806", ONLY_TOLD_V4), ("86dd", ONLY_TOLD_V6)}
    assert told.count(told[0]) == len(SCHEDULE_S)
    witness.runs_on_b()
    back = scene.b.relocctl("migrate", "--live", "guest", scene.a.host.address).result
    assert port_of_guest(scene) == "hosta"
    seen = [move for move in (there, back) if move["blackout_ms"] is not None]
    assert seen, "no first frame was seen"  # one may be late on a busy machine
    assert all(move["blackout_ms"] > 0 for move in seen)
    witness.runs_on_a()


def port_of_guest(scene: Scene) -> str:
    """Where the switch sends what is for the guest."""
    rows = json.loads(scene.network.switch.run(["bridge", "-j", "fdb", "show", "br", "br0"]))
    (port,) = [row["ifname"] for row in rows if row["mac"] == GUEST_MAC]
    return str(port)


@contextlib.contextmanager
def listening(host: Host) -> Iterator[socket.socket]:
    """Everything that comes in at a host."""
    with in_netns(host.netns):
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0003))
    with sock:
        sock.settimeout(30)
        yield sock


def frame_of_announcement(frames: socket.socket) -> tuple[str, str]:
    """The next announcement of an address that only the domain file knows of: EtherType and address."""
    while True:
        frame = frames.recv(2048)
        if frame[6:12].hex(":") == GUEST_MAC:
            for address in (ONLY_TOLD_V4, ONLY_TOLD_V6):
                if ip_address(address).packed in (frame[28:32], frame[22:38]):
                    return frame[12:14].hex(), address


def test_one_segment_is_proven_and_two_are_refused(scene: Scene, witness: Witness) -> None:
    found = segment_check(scene.a, scene.b)
    assert found["verdict"] == "pass"
    assert "a probe went" in found["text"]
    scene.network.split()
    found = segment_check(scene.a, scene.b)
    assert found["verdict"] == "fail"
    reply = scene.a.relocctl("migrate", "--live", "guest", scene.b.host.address, check=False)
    assert reply.exit_code == 7
    assert [reason["code"] for reason in reply.result["reasons"]] == ["segment"]
    assert f"({SUBNET}.0/24)" in reply.stderr
    assert f"({ROUTED_SUBNET}.0/24)" in reply.stderr
    assert "type vxlan" in reply.stderr
    witness.runs_on_a()


TUNNEL = {**ALLOW, "xen-relocation-l2": "tunnel"}


def test_bridges_that_are_apart_are_joined_for_as_long_as_a_guest_needs_it(
    scene: Scene, witness: Witness
) -> None:
    """Behind a router, the guest keeps its address and its connections, and packets of full size."""
    a, b = scene.a, scene.b
    for host in (a, b):
        host.reload(TUNNEL)
    assert "joins them by a tunnel" in segment_check(a, b)["text"]
    assert not tunnels(a) + tunnels(b)
    with scene.udp() as udp, scene.tcp() as tcp:
        udp.wait_answered()
        move = scene.move(a, b, udp)
        assert move.after.follows(move.before)
        assert move.after.bad == 0
        tcp.wait_more(5)
        assert len(tunnels(a)) == len(tunnels(b)) == 2
        echo_of_full_size(scene.client)
        b.kill()
        (device,) = b.host.links("vxlan")
        b.host.run(["ip", "link", "delete", device])  # as if it had died before it was made
        b.start()
        tcp.wait_more(5)
        assert len(tunnels(b)) == 2
        scene.move(b, a, udp)
        tcp.wait_more(5)
        assert not tcp.stats().error
    wait_until(lambda: not tunnels(a) + tunnels(b), "the tunnel is not taken away")
    witness.runs_on_a()


def echo_of_full_size(client: Host) -> None:
    """A packet that fills the frame, there and back. Who learns on the way that it is too large sends it in parts."""
    with socket_in(client.netns, socket.SOCK_DGRAM) as sock:
        sock.settimeout(1)
        for number in range(10):
            packet = bytes([number]) * FULL_SIZE
            sock.sendto(packet, (GUEST_IP, ECHO_PORT))
            with contextlib.suppress(TimeoutError):
                if sock.recv(2 * FULL_SIZE) == packet:
                    return
    raise AssertionError("packets of full size do not come through")


def tunnels(host: RelocdHost) -> list[str]:
    """What there is of tunnels on a host: each has a record and a device."""
    return [*host.host.links("vxlan"), *(path.name for path in host.state_dir.glob("tunnels/*.sxp"))]
