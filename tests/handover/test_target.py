"""The target's machine: once prepared it acts on the source's word alone."""

from __future__ import annotations

import pytest

from relocd.handover.machine import Failure
from relocd.handover.record import Mark
from relocd.handover.target import (
    TARGET_TABLE,
    TargetEffect,
    TargetEvent,
    TargetHandover,
    TargetState,
)

WHY = Failure("hypervisor", "it ended")


def test_the_whole_way() -> None:
    machine = TargetHandover()
    assert machine.handle(TargetEvent.LISTENING) == (TargetEffect.TELL_RECEIVING,)
    assert machine.handle(TargetEvent.LOADED) == (TargetEffect.ASK_DIGEST,)
    assert machine.handle(TargetEvent.DIGEST_KNOWN) == (TargetEffect.TELL_PREPARED,)
    assert machine.handle(TargetEvent.SOURCE_COMMITTED) == (TargetEffect.WRITE_OWNED,)
    assert machine.handle(TargetEvent.OWNED_WRITTEN) == (TargetEffect.RESUME,)
    assert machine.handle(TargetEvent.DOMAIN_RUNS) == (
        TargetEffect.TELL_RESUMED,
        TargetEffect.WRITE_ARRIVED,
        TargetEffect.FINISH,
    )
    assert machine.state is TargetState.DONE


@pytest.mark.parametrize("event", [TargetEvent.FAILURE, TargetEvent.LINK_LOST, TargetEvent.SOURCE_ABORTED])
@pytest.mark.parametrize("state", [TargetState.RESERVED, TargetState.RECEIVING, TargetState.CHECKING])
def test_before_prepared_everything_is_discarded(state: TargetState, event: TargetEvent) -> None:
    machine = TargetHandover(state)
    effects = machine.handle(event)
    assert effects is not None
    assert TargetEffect.DISCARD in effects


def test_prepared_and_cut_off_it_neither_resumes_nor_discards() -> None:
    machine = TargetHandover(TargetState.PREPARED)
    for event in (TargetEvent.LINK_LOST, TargetEvent.SOURCE_UNDECIDED, TargetEvent.LINK_LOST):
        assert machine.handle(event) == (TargetEffect.ASK_SOURCE,)
    assert machine.state is TargetState.PREPARED


def test_a_commit_before_prepared_means_nothing() -> None:
    for state in (TargetState.RESERVED, TargetState.RECEIVING, TargetState.CHECKING):
        assert TargetHandover(state).handle(TargetEvent.SOURCE_COMMITTED) is None


def test_the_domain_is_resumed_only_when_ownership_is_on_disk() -> None:
    resuming = {event for (_, event), t in TARGET_TABLE.items() if TargetEffect.RESUME in t.effects}
    assert resuming == {TargetEvent.OWNED_WRITTEN}
    machine = TargetHandover(TargetState.OWNING)
    assert machine.handle(TargetEvent.OWNED_NOT_WRITTEN) == (TargetEffect.WRITE_OWNED_LATER,)


def test_an_owned_copy_that_died_before_it_ran_is_given_back_once_that_is_on_disk() -> None:
    machine = TargetHandover(TargetState.RESUMING)
    effects = machine.handle(TargetEvent.COPY_NEVER_RAN)
    assert effects is not None
    assert effects.index(TargetEffect.WRITE_UNDOING) < effects.index(TargetEffect.TELL_ABORT)


def test_an_owned_copy_that_may_have_run_is_not_given_back() -> None:
    machine = TargetHandover(TargetState.RESUMING)
    effects = machine.handle(TargetEvent.COPY_LOST)
    assert effects == (TargetEffect.WRITE_LOST, TargetEffect.TELL_LOST, TargetEffect.FINISH)


def test_an_operator_gives_up_what_does_not_resume_and_loses_a_race_against_it() -> None:
    machine = TargetHandover(TargetState.RESUMING)
    assert machine.handle(TargetEvent.OPERATOR_DISCARDS) == (TargetEffect.DISCARD,)
    assert machine.handle(TargetEvent.DOMAIN_DOES_NOT_RUN) is None
    effects = machine.handle(TargetEvent.DOMAIN_RUNS)
    assert effects is not None
    assert TargetEffect.WRITE_ARRIVED in effects


@pytest.mark.parametrize("resume_here", [True, False])
def test_an_operators_word_on_a_prepared_copy_is_on_disk_before_it_is_acted_on(resume_here: bool) -> None:
    event = TargetEvent.OPERATOR_RESUMES if resume_here else TargetEvent.OPERATOR_DISCARDS
    effects = TargetHandover(TargetState.PREPARED).handle(event)
    assert effects is not None
    assert effects[0] is (TargetEffect.WRITE_OWNED if resume_here else TargetEffect.WRITE_UNDOING)


@pytest.mark.parametrize("here", [True, False])
@pytest.mark.parametrize("mark", [Mark.BEGUN, Mark.OWNED, Mark.UNDOING])
def test_every_open_mark_is_gone_on_from_after_a_restart(mark: Mark, here: bool) -> None:
    machine = TargetHandover()
    effects = machine.recover(mark, copy_here=here)
    expected = {
        Mark.BEGUN: TargetEffect.ASK_SOURCE if here else TargetEffect.DISCARD,
        Mark.OWNED: TargetEffect.RESUME,
        Mark.UNDOING: TargetEffect.DISCARD,
    }
    assert effects == (expected[mark],)


@pytest.mark.parametrize("state", [TargetState.OWNING, TargetState.RESUMING, TargetState.DONE])
def test_an_owned_domain_is_never_discarded(state: TargetState) -> None:
    machine = TargetHandover(state)
    assert machine.fail(WHY) is None
    assert machine.handle(TargetEvent.SOURCE_ABORTED) is None
    assert machine.handle(TargetEvent.LINK_LOST) is None


def test_every_state_but_the_last_ones_has_a_way_on() -> None:
    leaving = {state for (state, _), t in TARGET_TABLE.items() if t.state is not state}
    assert leaving == set(TargetState) - {TargetState.DONE, TargetState.DISCARDED, TargetState.LOST}
