"""Both daemons are stopped and started again in the middle of relocations, ten in a row, each at another step."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from attrs import frozen

from tests.e2e.faults import HOME, LOST, MOVED
from tests.e2e.judge import Judge
from tests.e2e.staging import GUEST, WAIT_S, Result, Stage, settle, stage_of, stock, wire_of
from tests.scene import Scene
from tests.testbed.daemons import RelocdHost

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

SOURCE_FIRST, TARGET_FIRST, AT_ONCE = "source first", "target first", "both at once"


@frozen
class Restart:
    """When the daemons are stopped, in which order, and what must come of it: place, exit code, message."""

    step: str
    order: str
    place: str
    exit_code: int
    said: str


STOPPED, PEER_STOPPED = "^relocd is being stopped", r"^[0-9.]+: relocd is being stopped"

UNCONFIRMED = "^the hand-over is decided and the target has not confirmed it"

RESTARTS = (
    Restart("hello, answered", SOURCE_FIRST, HOME, 11, STOPPED),
    Restart("propose", TARGET_FIRST, HOME, 6, LOST),
    Restart("accept", AT_ONCE, HOME, 11, STOPPED),
    Restart("lane", TARGET_FIRST, HOME, 11, PEER_STOPPED),
    Restart("boot files", SOURCE_FIRST, HOME, 11, STOPPED),
    Restart("receiving", TARGET_FIRST, HOME, 11, PEER_STOPPED),
    Restart("switchover", SOURCE_FIRST, HOME, 11, STOPPED),
    Restart("prepared", AT_ONCE, HOME, 11, STOPPED),
    Restart("commit", SOURCE_FIRST, MOVED, 12, UNCONFIRMED),
    Restart("resumed", TARGET_FIRST, MOVED, 0, ""),
)


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    """Two hosts, and a guest on host a that dirties memory while it checks it."""
    with Scene() as scene:
        scene.start_guest(scene.a, **GUEST)
        yield scene


@pytest.mark.parametrize("restart", RESTARTS, ids=[f"{r.step}, {r.order}" for r in RESTARTS])
def test_both_daemons_are_restarted(scene: Scene, restart: Restart) -> None:
    stage = stage_of(scene)
    judge = Judge(stage)
    ending = judge.ending(_run(stage, restart))
    assert (ending.place, ending.exit_code) == (restart.place, restart.exit_code)
    assert re.search(restart.said, ending.said)


def _run(stage: Stage, restart: Restart) -> Result:
    """One relocation, held at a step until the first daemon (or both) is down; then the step goes on."""
    stock(stage, lacking=restart.step == "boot files")
    with wire_of(stage, restart.step, "hold") as wire:
        moving = stage.scene.begin_move(stage.source, stage.target)
        assert wire.struck.wait(WAIT_S), f"{restart.step} never came by"
        first, *then = _turns(stage, restart.order)
        _stop(first)
        wire.release()
        _start(first)
        for hosts in then:
            _stop(hosts)
            _start(hosts)
        exit_code, outcome = moving.finish()
        settle(stage)
    return Result(exit_code, outcome, moving.stderr)


def _turns(stage: Stage, order: str) -> list[tuple[RelocdHost, ...]]:
    source, target = stage.hosts
    turns: dict[str, list[tuple[RelocdHost, ...]]] = {
        SOURCE_FIRST: [(source,), (target,)],
        TARGET_FIRST: [(target,), (source,)],
        AT_ONCE: [(source, target)],
    }
    return turns[order]


def _stop(hosts: tuple[RelocdHost, ...]) -> None:
    """SIGTERM, to all at the same time; each must end in good order."""
    with ThreadPoolExecutor() as pool:
        assert list(pool.map(RelocdHost.terminate, hosts)) == [0] * len(hosts)


def _start(hosts: tuple[RelocdHost, ...]) -> None:
    with ThreadPoolExecutor() as pool:
        list(pool.map(RelocdHost.start, hosts))
