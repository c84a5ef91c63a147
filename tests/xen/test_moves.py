"""The main job on real Xen hosts: live, back, offline, PV; users notice nothing; domains outlive the service."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.testbed.xen.install import Installed
from tests.xen.scene import XenScene

pytestmark = [pytest.mark.xen, pytest.mark.timeout(2400)]

PVH, PV = 10, 11


@pytest.fixture(scope="module", autouse=True)
def guest(scene: XenScene) -> Iterator[None]:
    """A guest that is on host a when the first test begins, and after each."""
    scene.start_guest(scene.a, "web", PVH)
    yield
    scene.a.ask("destroy", domain="web")


def move(source: Installed, target: Installed, name: str, *options: str) -> dict[str, object]:
    """Relocate, and see that the domain is where it should be, and nowhere else."""
    outcome: dict[str, object] = source.relocctl("migrate", *options, name, target.host.address).result
    assert outcome["outcome"] == "completed", outcome
    assert name not in source.states()
    assert target.states()[name] == "running"
    assert [each for each in source.xen_states() if each.startswith(name)] == []
    assert name in target.running()
    return outcome


def test_live_there_and_back_with_connections_that_live_on(scene: XenScene) -> None:
    before = scene.stat(PVH)
    with scene.udp(PVH) as udp, scene.tcp(PVH) as tcp:
        udp.wait_answered()
        for source, target in ((scene.a, scene.b), (scene.b, scene.a)):
            outcome = move(source, target, "web", "--live")
            assert outcome["live"] is True
            tcp.wait_more(3)
            after = scene.stat(PVH)
            assert after.follows(before)
            assert after.bad == 0
            before = after
        assert not tcp.stats().error
        print(f"longest gap {udp.blackout_ms():.0f} ms")


def test_offline(scene: XenScene) -> None:
    before = scene.stat(PVH)
    assert move(scene.a, scene.b, "web")["live"] is False
    after = scene.stat(PVH)
    assert after.follows(before)
    assert after.bad == 0


def test_a_paused_domain_arrives_paused(scene: XenScene) -> None:
    before = scene.stat(PVH)
    scene.b.ask("pause", domain="web")
    scene.b.relocctl("migrate", "web", scene.a.host.address)
    assert scene.a.states()["web"] == "paused"
    assert "web" not in scene.a.running()
    scene.a.ask("unpause", domain="web")
    after = scene.stat(PVH)
    assert after.follows(before)
    assert after.bad == 0


def test_domains_outlive_the_service(scene: XenScene) -> None:
    before, domains = scene.stat(PVH), scene.a.ask("list")["domains"]
    scene.a.host.run("systemctl restart relocd")
    after = scene.a.ask("list")["domains"]
    assert [(each["id"], each["state"]) for each in after] == [
        (each["id"], each["state"]) for each in domains
    ]
    assert scene.stat(PVH).follows(before)


def test_a_pv_domain_moves_offline_and_live_only_where_xen_can(scene: XenScene) -> None:
    before = scene.start_guest(scene.b, "old", PV, machine="pv")
    scene.b.relocctl("migrate", "old", scene.a.host.address)
    assert scene.a.states()["old"] == "running"
    after = scene.stat(PV)
    assert after.follows(before)
    live = scene.a.relocctl("migrate", "--live", "old", scene.b.host.address, check=False)
    if "shadow" in scene.a.host.run("xl info virt_caps"):
        assert live.exit_code == 0
    else:
        assert "shadow paging" in live.stderr
    where = scene.b if "old" in scene.b.states() else scene.a
    assert scene.stat(PV).follows(after)
    where.ask("destroy", domain="old")
    assert "old" not in scene.a.xen_states()
    assert "old" not in scene.b.xen_states()
