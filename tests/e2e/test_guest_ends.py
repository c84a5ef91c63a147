"""Guests that end by themselves while they are being relocated, and people who interfere: one stated outcome each."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from tests.e2e.test_failures import reload
from tests.scene import GUEST_UUID, Moving, Scene
from tests.testbed.console import Console
from tests.testbed.daemons import RelocdHost
from tests.testbed.memcheck import MemCheck

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

#: So slow that a relocation is still in its rounds when the guest strikes.
SLOW: dict[str, str | int] = {"xen-relocation-max-bandwidth": 8}

REBOOT, POWER_OFF, PANIC = "reboot -f", "poweroff -f", "echo c > /proc/sysrq-trigger"


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    """Two hosts that send slowly."""
    with Scene(settings=SLOW) as scene:
        yield scene


@pytest.fixture
def before(scene: Scene) -> MemCheck:
    """The guest runs on host a: the one that the test before left there, or a fresh one. Its counters."""
    if not states(scene.a):
        scene.b.relocctl("destroy", "guest", check=False)
        path = scene.domain_file(memory_mib=112, fill_mib=8)
        path.write_text(path.read_text() + 'on_crash = "preserve"\n')
        scene.a.relocctl("create", path)
    return scene.wait_guest(lambda stat: stat.full)


def order(scene: Scene, command: str) -> None:
    """Type a command on the console, which takes no login, and return once the shell has read it."""
    with socket.socket(socket.AF_UNIX) as terminal:
        terminal.connect(scene.a.relocctl("console", "guest").result["path"])
        console = Console(terminal)
        console.send(f"\necho as''ordered; {command}")
        console.wait_for("asordered", 30)


def in_its_rounds(scene: Scene) -> Moving:
    """A relocation from a to b whose memory moves."""
    moving = scene.begin_move(scene.a, scene.b)
    moving.wait_phase("memory")
    return moving


def phase(host: RelocdHost) -> str:
    (row,) = host.relocctl("status").result
    return str(row["state"])


def states(host: RelocdHost) -> dict[str, str]:
    return {row["uuid"]: row["state"] for row in host.relocctl("list").result}


def nothing_left(*hosts: RelocdHost) -> None:
    for host in hosts:
        assert states(host) == {}
        host.wait_clean()


def test_a_guest_that_reboots_arrives_freshly_booted_and_a_paused_one_paused(
    scene: Scene, before: MemCheck
) -> None:
    moving = in_its_rounds(scene)
    order(scene, REBOOT)
    assert phase(scene.a) == "moving"
    code, outcome = moving.finish()
    assert (code, outcome["outcome"]) == (0, "completed")
    booted = scene.wait_guest(lambda stat: stat.full)
    assert booted.boot_id != before.boot_id
    assert states(scene.b) == {GUEST_UUID: "running"}
    nothing_left(scene.a)
    scene.b.relocctl("pause", "guest")
    scene.b.relocctl("migrate", "--live", "guest", scene.a.host.address)
    assert states(scene.a) == {GUEST_UUID: "paused"}
    nothing_left(scene.b)
    scene.a.relocctl("unpause", "guest")
    after = scene.stat()
    assert after.follows(booted)
    assert after.bad == 0


def test_nobody_touches_a_domain_under_way_and_cancel_is_the_way_out(scene: Scene, before: MemCheck) -> None:
    reload(scene.a, {"xen-relocation-max-bandwidth": 1})  # all of what follows happens in its rounds
    moving = in_its_rounds(scene)
    (relocation,) = [row["relocation"] for row in scene.a.relocctl("status").result]
    for host in (scene.a, scene.b):
        for verb in ("destroy", "shutdown", "pause", "unpause", "reboot"):
            reply = host.relocctl(verb, "guest", check=False)
            assert reply.exit_code == 2, f"{verb} on {host.host.name}"
            assert "being relocated" in reply.stderr
    scene.a.relocctl("cancel", relocation)
    code, outcome = moving.finish()
    assert (code, outcome["outcome"]) == (11, "failed")
    reload(scene.a, SLOW)
    assert scene.stat().follows(before)
    nothing_left(scene.b)


def test_a_guest_that_powers_off_ends_the_relocation_and_is_gone(scene: Scene, before: MemCheck) -> None:
    moving = in_its_rounds(scene)
    order(scene, POWER_OFF)
    code, outcome = moving.finish()
    assert (code, outcome["outcome"]) == (9, "failed")
    assert "power-off of the guest" in outcome["error"]
    nothing_left(scene.a, scene.b)


def test_a_crashed_guest_that_is_preserved_stays_at_the_source(scene: Scene, before: MemCheck) -> None:
    moving = in_its_rounds(scene)
    order(scene, PANIC)
    code, outcome = moving.finish()
    assert (code, outcome["outcome"]) == (9, "failed")
    assert "crash of the guest" in outcome["error"]
    assert states(scene.a) == {GUEST_UUID: "crashed"}
    nothing_left(scene.b)
    again = scene.a.relocctl("migrate", "guest", scene.b.host.address, check=False)
    assert again.exit_code == 2
    assert "crashed" in again.stderr
    scene.a.relocctl("destroy", "guest")
    nothing_left(scene.a)
