"""The main job on real guests: live, back, offline; users notice nothing; what is paused arrives paused."""

from __future__ import annotations

import json

import pytest

from tests.e2e.announced import ONLY_TOLD_V4, ONLY_TOLD_V6, listening, next_announcement, port_of_guest
from tests.e2e.conftest import Witness
from tests.scene import GUEST_MAC, Scene
from tests.testbed.network import GUEST_IP, UPLINK

#: Announcements that are waited for; the later ones take seconds.
REPEATED = 3

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]


def test_live_there_and_back_and_offline_with_connections_that_live_on(
    scene: Scene, witness: Witness
) -> None:
    with scene.udp() as udp, scene.ssh() as ssh, scene.tcp() as tcp:
        udp.wait_answered()
        for source, target, live in (
            (scene.a, scene.b, True),
            (scene.b, scene.a, True),
            (scene.a, scene.b, False),
        ):
            move = scene.move(source, target, udp, live=live)
            assert move.outcome["outcome"] == "completed"
            assert move.outcome["live"] is live
            assert move.outcome["rounds"] >= 1
            assert move.outcome["bytes_sent"] > 1 << 20
            assert move.outcome["pages"] > 0
            assert move.after.follows(move.before)
            assert move.after.bad == 0
            ssh.wait_more(5)
            tcp.wait_more(5)
        assert not ssh.stats().error
        assert not tcp.stats().error
    witness.runs_on_b()
    scene.b.relocctl("migrate", "--live", "guest", scene.a.host.address)
    witness.runs_on_a()


def test_boot_files_travel_only_when_the_target_lacks_them(scene: Scene, witness: Witness) -> None:
    """They are there from the moves before; without them in its store the target gets them again."""
    boot = scene.b.state_dir / "boot"
    kept = sorted(path.name for path in boot.iterdir())
    assert len(kept) == 2
    there = scene.a.relocctl("migrate", "--live", "guest", scene.b.host.address).result
    scene.b.relocctl("migrate", "--live", "guest", scene.a.host.address)
    for path in boot.iterdir():
        path.unlink()
    with_files = scene.a.relocctl("migrate", "--live", "guest", scene.b.host.address).result
    assert sorted(path.name for path in boot.iterdir()) == kept
    assert there["outcome"] == with_files["outcome"] == "completed"
    scene.b.relocctl("migrate", "--live", "guest", scene.a.host.address)
    witness.runs_on_a()


def test_a_guest_that_was_relocated_can_reboot(scene: Scene) -> None:
    before = scene.stat()
    scene.a.relocctl("migrate", "--live", "guest", scene.b.host.address)
    scene.b.relocctl("reboot", "guest")
    after = scene.wait_guest(lambda stat: stat.boot_id != before.boot_id and stat.full)
    assert after.bad == 0
    scene.b.relocctl("migrate", "--live", "guest", scene.a.host.address)
    assert scene.stat().follows(after)


def test_xm_moves_silently_and_the_network_is_told_at_once(scene: Scene, witness: Witness) -> None:
    """The client knows the guest's MAC for good and the switch forgets nothing: only announcements can help."""
    ageing = ["type", "bridge", "ageing_time", "100000"]
    scene.network.switch.run(["ip", "link", "set", "br0", *ageing])
    known = [GUEST_IP, "lladdr", GUEST_MAC, "nud", "permanent", "dev", UPLINK]
    scene.client.run(["ip", "neigh", "replace", *known])
    for source, target in ((scene.a, scene.b), (scene.b, scene.a)):
        assert port_of_guest(scene) == source.host.name
        with listening(scene.client) as frames:
            reply = source.xm("migrate", "--live", "guest", target.host.address)
            assert port_of_guest(scene) == target.host.name
            told = [next_announcement(frames) for _ in range(2 * REPEATED)]
        assert (reply.stdout, reply.stderr) == ("", "")
        assert told.count(("0806", ONLY_TOLD_V4)) == told.count(("86dd", ONLY_TOLD_V6)) == REPEATED
    witness.runs_on_a()


def test_a_paused_domain_arrives_paused(scene: Scene, witness: Witness) -> None:
    scene.a.relocctl("pause", "guest")
    scene.a.relocctl("migrate", "--live", "guest", scene.b.host.address)
    (domain,) = scene.b.relocctl("list").result
    assert domain["state"] == "paused"
    scene.b.relocctl("unpause", "guest")
    witness.runs_on_b()
    scene.b.relocctl("migrate", "guest", scene.a.host.address)
    witness.runs_on_a()


def test_domains_survive_both_daemons_and_are_taken_up_again(scene: Scene, witness: Witness) -> None:
    assert scene.a.terminate() == 0
    scene.a.start()
    witness.runs_on_a()
    scene.a.kill()
    scene.a.start()
    witness.runs_on_a()
    scene.a.relocctl("migrate", "--live", "guest", scene.b.host.address)
    scene.b.kill()
    scene.b.start()
    witness.runs_on_b()
    scene.b.relocctl("migrate", "--live", "guest", scene.a.host.address)
    witness.runs_on_a()


def test_check_says_yes_with_every_reason(scene: Scene, witness: Witness) -> None:
    result = scene.a.relocctl("check", "guest", scene.b.host.address).result
    assert result["passed"] is True
    assert {check["check"] for check in result["checks"]} >= {"memory", "architecture", "bridges", "identity"}
    witness.runs_on_a()


def test_the_outcome_object_has_every_field_that_programs_rely_on(scene: Scene, witness: Witness) -> None:
    reply = scene.a.relocctl("migrate", "guest", scene.b.host.address)
    last = json.loads(reply.stdout.splitlines()[-1])
    back = scene.b.relocctl("migrate", "--live", "guest", scene.a.host.address).result
    promised = {
        "outcome", "relocation", "live", "rounds", "duration_s", "downtime_ms", "blackout_ms", "bytes_sent",
        "pages", "zero_pages", "saved_zero_bytes", "saved_compression_bytes", "dense_bytes", "level_bytes",
        "channels", "error",
    }  # fmt: skip
    assert promised <= last.keys()
    assert last["error"] is None
    assert last["saved_zero_bytes"] == 4096 * last["zero_pages"] > 0
    assert sum(last["level_bytes"].values()) >= 4096 * last["pages"]
    blackouts = [move["blackout_ms"] for move in (last, back) if move["blackout_ms"] is not None]
    assert blackouts, "no first frame was seen"  # one may be late on a busy machine
    assert min(blackouts) > 0
    witness.runs_on_a()
