"""Two hosts, a breaking link, crashes between any two effects: never two running, never none, always decided."""

from __future__ import annotations

from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.handover.world import World


class TwoHosts(RuleBasedStateMachine):
    """Hypothesis chooses what happens next; ``teardown`` heals the world and wants it decided."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()

    @precondition(lambda self: self.world.source_todo)
    @rule()
    def source_works(self) -> None:
        self.world.source_step()

    @precondition(lambda self: self.world.target_todo)
    @rule()
    def target_works(self) -> None:
        self.world.target_step()

    @precondition(lambda self: self.world.to_source)
    @rule()
    def a_message_reaches_the_source(self) -> None:
        self.world.source_hears()

    @precondition(lambda self: self.world.to_target)
    @rule()
    def a_message_reaches_the_target(self) -> None:
        self.world.target_hears()

    @precondition(lambda self: self.world.to_source)
    @rule()
    def a_message_to_the_source_comes_twice(self) -> None:
        self.world.to_source.appendleft(self.world.to_source[0])

    @precondition(lambda self: self.world.to_target)
    @rule()
    def a_message_to_the_target_comes_twice(self) -> None:
        self.world.to_target.appendleft(self.world.to_target[0])

    @rule()
    def the_work_goes_on(self) -> None:
        """What the hypervisors do, whenever it can happen; together, so that deep states are reached often."""
        self.world.target_builds()
        self.world.domain_pauses()
        self.world.stream_ends()

    @precondition(lambda self: self.world.link)
    @rule()
    def the_link_breaks(self) -> None:
        self.world.cut()

    @rule()
    def the_source_fails(self) -> None:
        self.world.source_fails()

    @rule()
    def the_targets_copy_dies(self) -> None:
        self.world.target_copy_dies()

    @rule()
    def the_next_journal_write_fails(self) -> None:
        self.world.journal_fails = True

    @precondition(lambda self: self.world.source_up)
    @rule()
    def the_source_crashes(self) -> None:
        self.world.crash_source()

    @precondition(lambda self: self.world.target_up)
    @rule()
    def the_target_crashes(self) -> None:
        self.world.crash_target()

    @precondition(lambda self: not self.world.source_up)
    @rule()
    def the_source_restarts(self) -> None:
        self.world.restart_source()

    @precondition(lambda self: not self.world.target_up)
    @rule()
    def the_target_restarts(self) -> None:
        self.world.restart_target()

    @rule()
    def they_ask_each_other(self) -> None:
        self.world.source_inquires()
        self.world.target_inquires()

    @invariant()
    def one_copy_at_most_runs(self) -> None:
        self.world.check()

    def teardown(self) -> None:
        self.world.heal()
        self.world.check_decided()


TestTwoHosts = TwoHosts.TestCase
TestTwoHosts.settings = settings(max_examples=1500, stateful_step_count=40, deadline=None)


def test_without_faults_the_domain_moves() -> None:
    world = World()
    for _ in range(40):
        world.target_builds()
        world.domain_pauses()
        world.stream_ends()
        for queue, step in (
            (world.source_todo, world.source_step),
            (world.target_todo, world.target_step),
            (world.to_source, world.source_hears),
            (world.to_target, world.target_hears),
        ):
            if queue:
                step()
        world.check()
    assert (world.source_copy, world.target_copy) == ("gone", "running")


def test_a_crash_after_every_single_step_is_survived() -> None:
    """Systematically, not by chance: stop the faultless run after n steps, crash one or both, heal."""
    for steps in range(60):
        for crash_source, crash_target in ((True, False), (False, True), (True, True)):
            world = World()
            _run(world, steps)
            if crash_source:
                world.crash_source()
            if crash_target:
                world.crash_target()
            world.check()
            world.heal()
            world.check_decided()


def _run(world: World, steps: int) -> None:
    done = 0
    while done < steps:
        world.target_builds()
        world.domain_pauses()
        world.stream_ends()
        queues = (
            (world.source_todo, world.source_step),
            (world.target_todo, world.target_step),
            (world.to_source, world.source_hears),
            (world.to_target, world.target_hears),
        )
        ready = [step for queue, step in queues if queue]
        if not ready:
            return
        ready[0]()
        done += 1
