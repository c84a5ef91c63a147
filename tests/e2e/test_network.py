"""The network that a guest comes back to: one segment, two, and two that are joined."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.e2e.conftest import Witness
from tests.scene import Scene
from tests.testbed.daemons import RelocdHost
from tests.testbed.network import ROUTED_SUBNET, SUBNET

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

ALLOW = {"xen-relocation-hosts-allow": rf"{re.escape(SUBNET)}\.[0-9]+ {re.escape(ROUTED_SUBNET)}\.[0-9]+"}


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


def test_tmp(scene, witness):
    import subprocess
    for s, t in ((scene.a, scene.b), (scene.b, scene.a)):
        with scene.udp() as udp:
            udp.wait_answered()
            move = scene.move(s, t, udp)
        print(move.outcome["downtime_ms"], move.outcome["blackout_ms"], move.blackout_ms, move.outcome["release_s"])
    r = scene.a.relocctl("migrate", "--live", "guest", scene.b.host.address).result
    print(r["downtime_ms"], r["blackout_ms"], r["release_s"])
    r = scene.b.relocctl("migrate", "--live", "guest", scene.a.host.address).result
    print(r["downtime_ms"], r["blackout_ms"], r["release_s"])
    print(scene.b.log_file.read_text()[-3000:])
    assert 0


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
