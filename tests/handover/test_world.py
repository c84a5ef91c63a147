"""Two hosts, a breaking link, crashes between any two effects: never two running, never none, always decided."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import permutations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.handover.world import World


def work(world: World, *order: int) -> bool:
    """One move of ordinary work: the first possible one in ``order``, else any. False when nothing is left to do."""
    world.target_builds()
    world.domain_pauses()
    world.stream_ends()
    moves = (
        (world.source_todo, world.source_step),
        (world.target_todo, world.target_step),
        (world.to_source, world.source_hears),
        (world.to_target, world.target_hears),
    )
    for index in (*order, *range(4)):
        queue, move = moves[index]
        if queue:
            move()
            return True
    return False


def _twice(queue: deque[str]) -> None:
    if queue:
        queue.appendleft(queue[0])


def _next_write_fails(world: World) -> None:
    world.journal_fails = True


def _both_crash(world: World) -> None:
    world.crash_source()
    world.crash_target()


FAULTS: dict[str, Callable[[World], None]] = {
    "link breaks": World.cut,
    "source fails": World.source_fails,
    "target's copy dies": World.target_copy_dies,
    "journal write fails": _next_write_fails,
    "source crashes": World.crash_source,
    "target crashes": World.crash_target,
    "both crash": _both_crash,
    "message to source doubled": lambda world: _twice(world.to_source),
    "message to target doubled": lambda world: _twice(world.to_target),
}


class TwoHosts(RuleBasedStateMachine):
    """Hypothesis chooses what happens next; ``teardown`` heals the world and wants it decided.

    Half of the steps are ordinary work, several moves at once, so that faults strike deep states too.
    """

    def __init__(self) -> None:
        super().__init__()
        self.world = World()

    @initialize(moves=st.lists(st.integers(0, 3), max_size=40))
    def a_good_start(self, moves: list[int]) -> None:
        self.the_work_goes_on(moves)

    @rule(moves=st.lists(st.integers(0, 3), min_size=1, max_size=8))
    def the_work_goes_on(self, moves: list[int]) -> None:
        for preferred in moves:
            work(self.world, preferred)
            self.world.check()

    @rule(fault=st.sampled_from(sorted(FAULTS)))
    def a_fault_strikes(self, fault: str) -> None:
        FAULTS[fault](self.world)

    @rule()
    def they_ask_each_other(self) -> None:
        self.world.source_inquires()
        self.world.target_inquires()

    @rule()
    def who_is_down_comes_back(self) -> None:
        if not self.world.source_up:
            self.world.restart_source()
        if not self.world.target_up:
            self.world.restart_target()

    @invariant()
    def one_copy_at_most_runs(self) -> None:
        self.world.check()

    def teardown(self) -> None:
        self.world.heal()
        self.world.check_decided()


TestTwoHosts = TwoHosts.TestCase
TestTwoHosts.settings = settings(max_examples=1500, stateful_step_count=20, deadline=None)


def test_without_faults_the_domain_moves() -> None:
    world = World()
    while work(world, 0):
        world.check()
    assert (world.source_copy, world.target_copy) == ("gone", "running")


@pytest.mark.parametrize("order", list(permutations(range(4))), ids=str)
@pytest.mark.parametrize(
    "fault", ["source crashes", "target crashes", "both crash", "link breaks", "source fails"]
)
def test_a_fault_after_every_single_step_is_survived(order: tuple[int, ...], fault: str) -> None:
    """Systematically, not by chance: stop a faultless run after n moves, strike, heal; in every order of moves."""
    finished = False
    steps = 0
    while not finished:
        world = World()
        finished = not all(work(world, *order) for _ in range(steps))
        FAULTS[fault](world)
        world.check()
        world.heal()
        world.check_decided()
        steps += 1
    assert steps > 15
