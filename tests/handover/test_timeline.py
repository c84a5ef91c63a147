"""A timeline stays bounded, numbers its moments, and loses none that could not be written."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from relocd.handover.timeline import MAX_OF_A_KIND, MAX_SAMPLES, MomentKind, Timeline


def test_moments_are_numbered_in_order_and_handed_out_once() -> None:
    timeline = Timeline()
    timeline.add(1.0, MomentKind.PHASE, phase="connect")
    timeline.add(2.0, MomentKind.STATE, state="moving")
    first = timeline.take_new()
    assert [(number, moment.at_s) for number, moment in first] == [(0, 1.0), (1, 2.0)]
    assert timeline.take_new() == ()
    timeline.add(3.0, MomentKind.PHASE, phase="commit")
    assert [number for number, _ in timeline.take_new()] == [2]


def test_what_could_not_be_written_comes_again_before_what_is_newer() -> None:
    timeline = Timeline()
    timeline.add(1.0, MomentKind.PHASE)
    taken = timeline.take_new()
    timeline.add(2.0, MomentKind.PHASE)
    timeline.give_back(taken)
    assert [moment.at_s for _, moment in timeline.take_new()] == [1.0, 2.0]


def test_a_former_daemons_numbers_are_not_used_again() -> None:
    timeline = Timeline()
    timeline.go_on(7)
    timeline.add(1.0, MomentKind.PHASE)
    assert [number for number, _ in timeline.take_new()] == [7]


@given(st.integers(0, 20_000))
def test_samples_are_thinned_and_still_span_the_whole_time(count: int) -> None:
    timeline = Timeline()
    for second in range(count):
        timeline.add(float(second), MomentKind.SAMPLE)
    kept = [moment.at_s for _, moment in timeline.take_new()]
    assert len(kept) <= 4 * MAX_SAMPLES
    assert len(kept) >= min(count, MAX_SAMPLES)
    if count:
        assert kept[-1] >= count * 0.9 - 1


def test_a_relocation_that_asks_for_weeks_does_not_fill_the_disk() -> None:
    timeline = Timeline()
    for second in range(10 * MAX_OF_A_KIND):
        timeline.add(float(second), MomentKind.PEER, says=None)
    timeline.add(1e9, MomentKind.OPERATOR, does="resume-here")
    kept = [moment.kind for _, moment in timeline.take_new()]
    assert kept == [MomentKind.PEER] * MAX_OF_A_KIND + [MomentKind.OPERATOR]
