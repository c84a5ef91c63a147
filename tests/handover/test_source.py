"""The source's machine: before the one commit everything is undone, after it nothing without the target's word."""

from __future__ import annotations

import pytest

from relocd.handover.machine import Failure, Totals
from relocd.handover.record import Mark
from relocd.handover.source import (
    SOURCE_TABLE,
    SourceEffect,
    SourceEvent,
    SourceHandover,
    SourceState,
)

SAME = Totals("aa" * 16, 1000)
OTHER = Totals("bb" * 16, 1000)
WHY = Failure("stream", "the lane broke")


def switching() -> SourceHandover:
    machine = SourceHandover()
    machine.handle(SourceEvent.TARGET_RECEIVING)
    machine.handle(SourceEvent.DOMAIN_PAUSED)
    return machine


def test_the_whole_way() -> None:
    machine = SourceHandover()
    assert machine.handle(SourceEvent.TARGET_RECEIVING) == (SourceEffect.START_STREAM,)
    paused = machine.handle(SourceEvent.DOMAIN_PAUSED)
    assert paused is not None
    assert SourceEffect.SWITCH_OVER in paused
    assert machine.stream_ended(SAME) == ()
    assert machine.hypervisor_finished() == ()
    assert machine.target_prepared(SAME) == (SourceEffect.STOP_TIMER, SourceEffect.WRITE_COMMITTED)
    assert machine.handle(SourceEvent.COMMIT_WRITTEN) == (SourceEffect.TELL_COMMIT,)
    assert machine.handle(SourceEvent.TARGET_RESUMED) == (SourceEffect.RELEASE_COPY,)
    assert machine.handle(SourceEvent.COPY_RELEASED) == (SourceEffect.WRITE_DONE, SourceEffect.FINISH)
    assert machine.state is SourceState.DONE


@pytest.mark.parametrize("missing", ["own", "target", "hypervisor"])
def test_nothing_is_committed_while_one_fact_is_missing(missing: str) -> None:
    machine = switching()
    if missing != "own":
        machine.stream_ended(SAME)
    if missing != "target":
        machine.target_prepared(SAME)
    if missing != "hypervisor":
        machine.hypervisor_finished()
    assert machine.state is SourceState.SWITCHING


@pytest.mark.parametrize("theirs", [OTHER, Totals(SAME.digest, 999)])
def test_a_different_digest_or_length_brings_the_domain_back(theirs: Totals) -> None:
    machine = switching()
    machine.stream_ended(SAME)
    machine.hypervisor_finished()
    effects = machine.target_prepared(theirs)
    assert effects is not None
    assert SourceEffect.BRING_BACK in effects
    assert machine.failure is not None
    assert theirs.digest in machine.failure.text


@pytest.mark.parametrize("event", [SourceEvent.FAILURE, SourceEvent.LINK_LOST])
@pytest.mark.parametrize("state", [SourceState.OPENING, SourceState.MOVING, SourceState.SWITCHING])
def test_before_the_decision_every_failure_leads_home(state: SourceState, event: SourceEvent) -> None:
    machine = SourceHandover(state)
    effects = machine.handle(event)
    assert effects is not None
    assert SourceEffect.BRING_BACK in effects
    assert SourceEffect.TELL_ABORT in effects
    assert machine.handle(SourceEvent.DOMAIN_BACK) == (SourceEffect.WRITE_ABORTED, SourceEffect.FINISH)


def test_a_commit_that_is_not_on_disk_is_no_commit() -> None:
    machine = SourceHandover(SourceState.DECIDING)
    effects = machine.handle(SourceEvent.COMMIT_NOT_WRITTEN)
    assert effects is not None
    assert SourceEffect.BRING_BACK in effects
    assert SourceEffect.TELL_COMMIT not in effects


@pytest.mark.parametrize("state", [SourceState.COMMITTED, SourceState.RELEASING, SourceState.DONE])
def test_after_the_decision_no_failure_of_this_side_brings_the_domain_back(state: SourceState) -> None:
    machine = SourceHandover(state)
    assert machine.fail(WHY) is None
    machine.handle(SourceEvent.LINK_LOST)
    assert machine.state is state


def test_a_lost_link_after_the_commit_means_asking() -> None:
    machine = SourceHandover(SourceState.COMMITTED)
    assert machine.handle(SourceEvent.LINK_LOST) == (SourceEffect.ASK_TARGET,)
    assert machine.handle(SourceEvent.TARGET_PREPARED) == (SourceEffect.TELL_COMMIT,)
    assert machine.handle(SourceEvent.TARGET_RESUMED) == (SourceEffect.RELEASE_COPY,)


def test_only_the_targets_word_that_its_copy_never_ran_or_an_operator_leads_back_after_the_commit() -> None:
    leading_back = {
        event
        for (state, event), transition in SOURCE_TABLE.items()
        if state is SourceState.COMMITTED and SourceEffect.BRING_BACK in transition.effects
    }
    assert leading_back == {SourceEvent.TARGET_WITHOUT_COPY, SourceEvent.OPERATOR_RESUMES}


def test_an_operators_word_is_on_disk_before_the_domain_resumes() -> None:
    effects = SourceHandover(SourceState.COMMITTED).handle(SourceEvent.OPERATOR_RESUMES)
    assert effects == (SourceEffect.WRITE_UNDOING, SourceEffect.BRING_BACK)


@pytest.mark.parametrize("state", [s for s in SourceState if s is not SourceState.COMMITTED])
@pytest.mark.parametrize("event", [SourceEvent.OPERATOR_RESUMES, SourceEvent.OPERATOR_DISCARDS])
def test_an_operator_decides_nothing_but_what_waits_for_the_target(
    state: SourceState, event: SourceEvent
) -> None:
    assert SourceHandover(state).handle(event) is None


def test_a_target_that_lost_its_copy_changes_nothing_by_itself() -> None:
    machine = SourceHandover(SourceState.COMMITTED)
    assert machine.handle(SourceEvent.TARGET_LOST_COPY) == ()
    assert machine.state is SourceState.COMMITTED


def test_a_domain_that_is_at_home_was_not_committed_whatever_the_disk_says() -> None:
    machine = SourceHandover()
    assert machine.recover(Mark.COMMITTED, at_home=True) == (SourceEffect.BRING_BACK,)
    assert machine.state is SourceState.UNDOING


@pytest.mark.parametrize("mark", [mark for mark in Mark if not mark.final and mark is not Mark.OWNED])
def test_every_open_mark_is_gone_on_from_after_a_restart(mark: Mark) -> None:
    machine = SourceHandover()
    assert machine.recover(mark, at_home=False)
    assert machine.state in (SourceState.UNDOING, SourceState.COMMITTED)


def test_the_copy_is_released_only_after_resumed_or_by_an_operator() -> None:
    releasing = {event for (_, event), t in SOURCE_TABLE.items() if SourceEffect.RELEASE_COPY in t.effects}
    assert releasing == {SourceEvent.TARGET_RESUMED, SourceEvent.OPERATOR_DISCARDS}


def test_prepared_before_the_switchover_is_a_breach() -> None:
    machine = SourceHandover(SourceState.MOVING)
    assert machine.target_prepared(SAME) is None


def test_every_state_but_the_last_ones_has_a_way_on() -> None:
    leaving = {state for (state, _), t in SOURCE_TABLE.items() if t.state is not state}
    assert leaving == set(SourceState) - {SourceState.DONE, SourceState.ABORTED}
