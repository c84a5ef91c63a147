"""Live guests that check their memory, placed on one host and rebuilt on the other, in turn."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.scene import Scene
from tests.testbed.daemons import RelocdHost
from tests.testbed.memcheck import full_sweep
from tests.testbed.network import GUEST_IP

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

MOVES = 3
PAGE_STREAM = {"xen-relocation-channels": 0}


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    with Scene(settings=PAGE_STREAM) as scene:
        scene.b.terminate()
        scene.b.write_config(PAGE_STREAM | {"xen-relocation-direct-placement": "no"})
        scene.b.start()
        scene.start_guest(scene.a, fill_mib=96, working_set_mib=32, dirty_mb_s=60)
        yield scene


def test_there_and_back_again_and_again(scene: Scene) -> None:
    for _ in range(MOVES):
        with scene.udp() as udp:
            udp.wait_answered()
            for source, target, direct in ((scene.a, scene.b, False), (scene.b, scene.a, True)):
                placed = _placed(target)
                move = scene.move(source, target, udp)
                assert move.outcome["outcome"] == "completed"
                assert _placed(target) == placed + direct
                after = full_sweep(scene.client.netns, GUEST_IP)
                assert after.follows(move.before)
                assert after.bad == 0


def _placed(host: RelocdHost) -> int:
    """How many domains arrived on a host with their pages put straight into memory."""
    return host.log_file.read_text().count("pages go straight into the guest's memory")
