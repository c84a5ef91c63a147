"""Two hosts, a breaking link, crashes between any two effects: never two running, never none, always decided."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from itertools import permutations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.handover.world import World

#: Runs that hypothesis makes up; ``make soak`` asks for many more.
RUNS = int(os.environ.get("RELOCD_SOAK_RUNS", "2000"))


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


def _swapped(queue: deque[str]) -> None:
    if len(queue) > 1:
        queue[0], queue[1] = queue[1], queue[0]


def _lost(queue: deque[str]) -> None:
    if queue:
        queue.popleft()


def _next_resume_fails(world: World) -> None:
    world.resume_fails = True


def _next_write_fails(world: World) -> None:
    world.journal_fails = True


def _next_write_fails_and_is_there(world: World) -> None:
    world.journal_lies = True


def _both_crash(world: World) -> None:
    world.crash_source()
    world.crash_target()


FAULTS: dict[str, Callable[[World], None]] = {
    "link breaks": World.cut,
    "source fails": World.source_fails,
    "target's copy dies": World.target_copy_dies,
    "journal write fails": _next_write_fails,
    "journal write fails and is there": _next_write_fails_and_is_there,
    "source crashes": World.crash_source,
    "target crashes": World.crash_target,
    "both crash": _both_crash,
    "resume fails": _next_resume_fails,
    "message to source lost": lambda world: _lost(world.to_source),
    "message to target lost": lambda world: _lost(world.to_target),
    "messages to source swapped": lambda world: _swapped(world.to_source),
    "messages to target swapped": lambda world: _swapped(world.to_target),
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
        self.resume_here = True

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

    @rule(source=st.booleans())
    def a_host_is_gone_for_good(self, source: bool) -> None:
        if source:
            self.world.source_is_gone_for_good()
        else:
            self.world.target_is_gone_for_good()

    @rule(resume_here=st.booleans())
    def an_operator_decides(self, resume_here: bool) -> None:
        self.resume_here = resume_here
        self.world.operator(resume_here=resume_here)

    @rule(resume_here=st.booleans())
    def an_operator_is_hasty(self, resume_here: bool) -> None:
        self.world.operator_is_hasty(resume_here=resume_here)

    def teardown(self) -> None:
        world = self.world
        world.heal()
        world.check_decided()
        if world.source_gone or world.target_gone:
            world.operator(resume_here=self.resume_here)
            world.heal()
            world.check_survivor()


TestTwoHosts = TwoHosts.TestCase
# The same runs each time, so that a change is judged by what it changes; the soak makes up new ones.
TestTwoHosts.settings = settings(
    max_examples=RUNS, stateful_step_count=20, derandomize="RELOCD_SOAK_RUNS" not in os.environ
)


@pytest.mark.parametrize("second", sorted(FAULTS))
@pytest.mark.parametrize(
    "first",
    [
        "resume fails",
        "target crashes",
        "source crashes",
        "journal write fails",
        "journal write fails and is there",
    ],
)
def test_two_faults_one_soon_after_the_other_are_survived(first: str, second: str) -> None:
    """Systematically: the first one after every move of a faultless run, the second up to six moves later."""
    for moves_before in range(26):
        for moves_between in range(7):
            world = World()
            for _ in range(moves_before):
                work(world, 0)
            FAULTS[first](world)
            if first.endswith("crashes"):
                world.restart_source()
                world.restart_target()
            for _ in range(moves_between):
                work(world, 1)
                world.source_inquires()
                world.target_inquires()
                world.check()
            FAULTS[second](world)
            world.heal()
            world.check_decided()


@pytest.mark.parametrize("resume_here", [True, False])
@pytest.mark.parametrize("source", [True, False], ids=["source gone", "target gone"])
@pytest.mark.parametrize("lost", ["commit", "resumed"])
def test_an_operator_settles_what_a_dead_host_cannot(lost: str, source: bool, resume_here: bool) -> None:
    """One host burns down while a message that matters is on its way; the other never decides by itself."""
    world = World()
    queue = world.to_target if lost == "commit" else world.to_source
    while lost not in queue:
        assert work(world, 0)
    if source:
        world.source_is_gone_for_good()
    else:
        world.target_is_gone_for_good()
    world.heal()
    if not (source and lost == "resumed"):
        assert "paused" in (world.source_copy, world.target_copy)
        assert "running" not in (world.source_copy, world.target_copy)
    world.operator(resume_here=resume_here)
    world.heal()
    world.check_survivor()
    expected = "running" if resume_here or (source and lost == "resumed") else "no copy"
    copy = world.target_copy if source else world.source_copy
    assert (copy == "running") == (expected == "running")


@pytest.mark.parametrize("resume_here", [True, False])
@pytest.mark.parametrize("crash", [False, True], ids=["", "crash between"])
def test_a_target_that_was_taken_for_dead_fits_in(resume_here: bool, crash: bool) -> None:
    world = World()
    while "commit" not in world.to_target:
        assert work(world, 0)
    world.crash_target()
    while world.source_todo:
        world.source_step()
    world.operator_is_hasty(resume_here=resume_here)
    world.source_step()
    if crash:
        world.crash_source()
    world.heal()
    if crash and not resume_here:
        return  # what the operator said was not on disk yet, and the target has the domain
    assert (world.source_copy == "running") == resume_here
    world.check_decided()


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
