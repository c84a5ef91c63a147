"""Live guests that check their memory, placed on one host and rebuilt on the other, in turn."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.scene import GUEST_UUID, Scene
from tests.testbed.daemons import RelocdHost
from tests.testbed.memcheck import full_sweep
from tests.testbed.network import GUEST_IP

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

MOVES = 3


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    with Scene() as scene:
        scene.b.terminate()
        scene.b.write_config({"xen-relocation-direct-placement": "no"})
        scene.b.start()
        scene.start_guest(scene.a, fill_mib=96, working_set_mib=32, dirty_mb_s=60)
        yield scene


def test_there_and_back_again_and_again(scene: Scene) -> None:
    assert not _shared(scene.a)
    for _ in range(MOVES):
        with scene.udp() as udp:
            udp.wait_answered()
            for source, target, shared in ((scene.a, scene.b, False), (scene.b, scene.a, True)):
                move = scene.move(source, target, udp)
                assert move.outcome["outcome"] == "completed"
                assert _shared(target) is shared
                after = full_sweep(scene.client.netns, GUEST_IP)
                assert after.follows(move.before)
                assert after.bad == 0


def _shared(host: RelocdHost) -> bool:
    """Whether the guest's memory is a file that relocd made."""
    (domain,) = host.relocctl("list").result
    assert domain["uuid"] == GUEST_UUID
    pids = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]
    (pid,) = [pid for pid in pids if _is_guest_of(pid, host)]
    return f"/memfd:relocd-{GUEST_UUID}" in Path(f"/proc/{pid}/maps").read_text()


def _is_guest_of(pid: int, host: RelocdHost) -> bool:
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().decode()
    except OSError:
        return False
    return GUEST_UUID in command and str(host.run_dir) in command and "qemu" in command
