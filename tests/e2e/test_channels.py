"""Guests whose hypervisor spreads their memory over channels; and everything that may end such a relocation."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from tests.e2e.conftest import Witness
from tests.e2e.staging import WAIT_S, settle, stage_of, wait_until, wire_of
from tests.scene import Scene
from tests.testbed.processes import kill_all

pytestmark = pytest.mark.e2e

CHANNELS = 4


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    """A guest that has enough memory to be interrupted in the middle of it."""
    with Scene() as scene:
        scene.start_guest(scene.a, fill_mib=96, working_set_mib=32, dirty_mb_s=20)
        yield scene


def test_live_there_and_offline_back(scene: Scene, witness: Witness) -> None:
    there = scene.a.relocctl("migrate", "--live", "guest", scene.b.host.address).result
    witness.runs_on_b()
    back = scene.b.relocctl("migrate", "guest", scene.a.host.address).result
    witness.runs_on_a()
    for outcome in (there, back):
        assert outcome["channels"] == CHANNELS
        assert outcome["pages"] * 4096 > 96 << 20
        assert outcome["saved_compression_bytes"] > outcome["bytes_sent"] > 0
        assert outcome["zero_pages"] > 0


def test_the_smaller_number_of_both_hosts_counts(scene: Scene, witness: Witness) -> None:
    scene.b.reload({"xen-relocation-channels": "2"})
    assert scene.a.relocctl("migrate", "guest", scene.b.host.address).result["channels"] == 2
    witness.runs_on_b()
    scene.b.reload({"xen-relocation-channels": "0"})
    assert scene.b.relocctl("migrate", "guest", scene.a.host.address).result["channels"] == 0
    witness.runs_on_a()
    scene.b.reload({"xen-relocation-channels": "auto"})


def test_under_a_low_limit_the_pages_are_streamed(scene: Scene, witness: Witness) -> None:
    words = ("migrate", "--max-bandwidth", "90M", "guest")
    assert scene.a.relocctl(*words, scene.b.host.address).result["channels"] == 0
    witness.runs_on_b()
    assert scene.b.relocctl("migrate", "guest", scene.a.host.address).result["channels"] == CHANNELS
    witness.runs_on_a()


@pytest.mark.parametrize("step", ["memory", "switchover"])
def test_everything_of_the_source_but_the_guest_is_killed_at_once(
    scene: Scene, witness: Witness, step: str
) -> None:
    """Nobody of ours is left then who holds the channels open, or reads them."""
    stage = stage_of(scene)
    with wire_of(stage, "switchover", "hold") as wire:
        moving = scene.begin_move(scene.a, scene.b)
        if step == "memory":
            moving.wait_phase("memory")
        else:
            assert wire.struck.wait(WAIT_S)
        assert scene.a.process is not None
        scene.a.process.send_signal(signal.SIGSTOP)  # so that it does nothing about the others' end
        kill_all(pid for pid, line in scene.a.processes().items() if "relocd.carrier" in line)
        scene.a.kill()
        wire.cut()
        scene.a.start()
        moving.finish()
        settle(stage)
    wait_until(lambda: not scene.b.ask("list")["domains"], "the copy on host b is not removed")
    witness.runs_on_a()
    assert scene.a.relocctl("migrate", "--live", "guest", scene.b.host.address).exit_code == 0
    witness.runs_on_b()
    scene.b.relocctl("migrate", "guest", scene.a.host.address)
    witness.runs_on_a()
