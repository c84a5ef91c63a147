"""The network that a guest comes back to: one segment, two, and two that are joined."""

from __future__ import annotations

import contextlib
import re
import socket
from collections.abc import Iterator

import pytest

from tests.e2e.conftest import Witness
from tests.e2e.staging import wait_until
from tests.scene import Scene
from tests.testbed.daemons import RelocdHost
from tests.testbed.netns import socket_in
from tests.testbed.network import GUEST_IP, ROUTED_SUBNET, SUBNET, Host

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

ALLOW = {"xen-relocation-hosts-allow": rf"{re.escape(SUBNET)}\.[0-9]+ {re.escape(ROUTED_SUBNET)}\.[0-9]+"}

FULL_SIZE, ECHO_PORT = 1472, 7


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    """Two hosts and a guest on host a, as for other tests; then host b moves behind a router."""
    with Scene(settings=ALLOW) as scene:
        scene.start_guest(scene.a, fill_mib=32, working_set_mib=16, dirty_mb_s=5)
        yield scene


def segment_check(source: RelocdHost, target: RelocdHost) -> dict[str, str]:
    """What a check alone says of the segment."""
    checks = source.relocctl("check", "guest", target.host.address, check=False).result["checks"]
    (found,) = [check for check in checks if check["check"] == "segment"]
    return found


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
    for host in (scene.a, scene.b):
        host.reload({**ALLOW, "xen-relocation-l2": "warn"})
    assert segment_check(scene.a, scene.b)["verdict"] == "warn"
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
        (told,) = b.relocctl("info").result["tunnels"]
        assert f"xenbr0 to {a.host.address}" in told
        assert "guests here: 1" in told
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
