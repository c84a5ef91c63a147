"""One scene for a module of end-to-end tests: booting a guest takes a while, and a good test leaves it as it was."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.announced import ONLY_TOLD
from tests.scene import GUEST_UUID, Scene
from tests.testbed.memcheck import MemCheck


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    """Two hosts, and a guest on host a that dirties memory while it checks it."""
    with Scene() as scene:
        scene.start_guest(scene.a, more_ips=ONLY_TOLD, fill_mib=64, working_set_mib=16, dirty_mb_s=10)
        yield scene


class Witness:
    """Takes the guest's counters before a test, and judges both hosts after it."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._before: MemCheck = scene.stat()

    def runs_on_a(self) -> None:
        """The guest runs on host a, went on counting, found no bad page; nothing is left on host b."""
        self._alive()
        assert _states(self._scene.a) == {GUEST_UUID: "running"}
        self._scene.b.wait_clean()
        assert _states(self._scene.b) == {}
        self._scene.a.wait_clean(keep=[GUEST_UUID])

    def runs_on_b(self) -> None:
        """The same, the other way round."""
        self._alive()
        assert _states(self._scene.b) == {GUEST_UUID: "running"}
        self._scene.a.wait_clean()
        assert _states(self._scene.a) == {}
        self._scene.b.wait_clean(keep=[GUEST_UUID])

    def _alive(self) -> None:
        after = self._scene.wait_guest(lambda stat: stat.verified > self._before.verified)
        assert after.follows(self._before)
        assert after.bad == 0


def _states(host: object) -> dict[str, str]:
    reply = host.relocctl("list")  # type: ignore[attr-defined]
    return {domain["uuid"]: domain["state"] for domain in reply.result}


@pytest.fixture
def witness(scene: Scene) -> Witness:
    """Counters from before the test."""
    return Witness(scene)
