"""The verdict on rounds: what is done, in which order, how far, and that it is explained."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from relocd.convergence.terms import Terms
from relocd.convergence.verdict import THROTTLE_PERCENT, THROTTLE_SETTLE_S, Facts, Judge, Verdict, VerdictKind

MB = 1_000_000
CONTINUE, GIVE_UP = VerdictKind.CONTINUE, VerdictKind.GIVE_UP
RAISE, THROTTLE, SWITCH_OVER = VerdictKind.RAISE_DOWNTIME, VerdictKind.THROTTLE, VerdictKind.SWITCH_OVER


def facts(number: int, remaining_mb: float, *, link_mb_s: int = 110, at_s: float | None = None) -> Facts:
    return Facts(
        number, int(remaining_mb * MB), 210 * MB, link_mb_s * MB, number * 5.0 if at_s is None else at_s
    )


def verdicts(terms: Terms, remaining_mb: Sequence[float], *, link_mb_s: int = 110) -> list[Verdict]:
    judge = Judge(terms)
    return [judge.judge(facts(n, mb, link_mb_s=link_mb_s)) for n, mb in enumerate(remaining_mb, start=1)]


def test_while_rounds_shrink_nothing_is_done() -> None:
    assert {v.kind for v in verdicts(Terms(), [1000, 500, 250, 125, 60, 30, 15, 7])} == {CONTINUE}


def test_the_aim_is_raised_step_by_step_and_no_further_than_allowed() -> None:
    told = verdicts(Terms(max_downtime_ms=100), [1000] * 6)
    assert [v.kind for v in told] == [CONTINUE, RAISE, RAISE, RAISE, CONTINUE, CONTINUE]
    assert [v.downtime_limit_ms for v in told] == [20, 40, 80, 100, 100, 100]
    assert "does not converge" in told[-1].text


def test_it_is_left_as_it_is_when_rounds_shrink_again() -> None:
    told = verdicts(Terms(), [1000, 1000, 500, 200])
    assert [v.downtime_limit_ms for v in told] == [20, 40, 40, 40]


def test_a_pause_that_may_be_is_allowed_at_once_when_patience_is_over() -> None:
    told = verdicts(Terms(max_downtime_ms=5000), [1000, 100, 100, 100, 100])
    assert [v.kind for v in told] == [CONTINUE, CONTINUE, RAISE, RAISE, SWITCH_OVER]
    assert "about 910 ms" in told[-1].text
    assert 910 < told[-1].downtime_limit_ms < 1300


def test_a_pause_that_may_not_be_is_never_allowed() -> None:
    assert SWITCH_OVER not in {v.kind for v in verdicts(Terms(), [1000] * 20)}


def test_throttling_only_where_it_is_allowed_and_only_at_the_longest_pause() -> None:
    assert THROTTLE not in {v.kind for v in verdicts(Terms(), [1000] * 20)}
    told = verdicts(Terms(max_downtime_ms=40, throttle=True), [1000] * 9)
    assert [v.throttle_percent for v in told] == [0, 0, *THROTTLE_PERCENT, 95, 95]
    assert [v.downtime_limit_ms for v in told] == [20] + [40] * 8


def test_a_step_of_throttling_gets_time_to_show() -> None:
    judge = Judge(Terms(downtime_ms=20, max_downtime_ms=20, throttle=True))
    times = [0.0, 1.0, 2.0, 1.1 + THROTTLE_SETTLE_S]
    told = [judge.judge(facts(n, 1000, at_s=at_s)) for n, at_s in enumerate(times, start=1)]
    assert [v.throttle_percent for v in told] == [0, 20, 20, 40]
    assert "has to show" in told[2].text


def test_rounds_are_limited() -> None:
    told = verdicts(Terms(max_rounds=3), [1000] * 4)
    assert told[-1].kind is GIVE_UP
    assert "did not converge within 3 rounds" in told[-1].text


def test_the_last_round_ends_it_with_a_pause_that_is_allowed() -> None:
    told = verdicts(Terms(max_rounds=2, max_downtime_ms=1000), [1000, 100, 90])
    assert told[-1].kind is SWITCH_OVER
    assert told[-1].downtime_limit_ms <= 1000


def test_it_is_given_up_when_the_time_is_over_with_the_numbers_and_a_way_out() -> None:
    judge = Judge(Terms(max_duration_s=30))
    verdict = judge.expired(Facts(9, 1200 * MB, 210 * MB, 110 * MB, 30.0))
    assert verdict.kind is GIVE_UP
    assert verdict.text == (
        "it was not done within 30 s: the guest dirties 210 MB/s, the link moves 110 MB/s; "
        "1.2 GB were left in round 9, after 30 s"
    )
    assert verdict.hint == (
        "Raise xen-relocation-max-downtime to 14000 (it is 300), or allow throttling (xen-relocation-throttle), or "
        "relocate without --live."
    )
    assert judge.judge(Facts(9, MB, 0, 0, 30.0)).kind is GIVE_UP


def test_advice_names_what_stands_in_the_way() -> None:
    def hint(terms: Terms, remaining_mb: float) -> str:
        return Judge(terms).expired(facts(9, remaining_mb)).hint

    lower = Terms(max_downtime_ms=50, allowed_downtime_ms=5000, max_duration_s=1)
    assert "Raise --max-downtime to 1200" in hint(lower, 100)
    assert "Allow it more time" in hint(Terms(max_duration_s=1), 1)
    assert "downtime" not in hint(Terms(max_duration_s=1), 100_000)
    assert "throttling" not in hint(Terms(max_duration_s=1, throttle=True), 100)


TERMS = st.builds(
    lambda start_ms, more_ms, spare_ms, **others: Terms(
        downtime_ms=start_ms,
        max_downtime_ms=start_ms + more_ms,
        allowed_downtime_ms=start_ms + more_ms + spare_ms,
        **others,
    ),
    st.integers(1, 1000), st.integers(0, 10_000), st.integers(0, 10_000),
    max_duration_s=st.sampled_from([0.0, 10.0]), max_rounds=st.sampled_from([0, 5]), throttle=st.booleans(),
)  # fmt: skip
FACTS = st.lists(
    st.builds(
        Facts, st.integers(1, 20), st.integers(0, 1 << 40), st.integers(0, 1 << 40), st.integers(0, 1 << 40),
        st.floats(0, 20),
    ),
    max_size=20,
)  # fmt: skip


@given(TERMS, FACTS)
def test_whatever_happens_nothing_exceeds_its_limit_or_is_taken_back(
    terms: Terms, story: list[Facts]
) -> None:
    judge = Judge(terms)
    before = judge.nothing_yet()
    for moment in story:
        verdict = judge.judge(moment)
        assert before.downtime_limit_ms <= verdict.downtime_limit_ms <= terms.max_downtime_ms
        assert (
            before.throttle_percent
            <= verdict.throttle_percent
            <= (THROTTLE_PERCENT[-1] if terms.throttle else 0)
        )
        before = verdict


@given(TERMS, FACTS)
def test_every_verdict_says_why_with_the_numbers(terms: Terms, story: list[Facts]) -> None:
    judge = Judge(terms)
    for moment in story:
        for verdict in (judge.judge(moment), judge.expired(moment)):
            assert verdict.text.endswith(str(moment))
            assert verdict.hint or verdict.kind is not GIVE_UP


@given(TERMS, FACTS)
def test_it_is_given_up_only_at_a_limit(terms: Terms, story: list[Facts]) -> None:
    judge = Judge(terms)
    for moment in story:
        late = bool(terms.max_duration_s) and moment.elapsed_s >= terms.max_duration_s
        long = bool(terms.max_rounds) and moment.round > terms.max_rounds
        if judge.judge(moment).kind is GIVE_UP:
            assert late or long


@given(TERMS, FACTS)
def test_what_is_done_is_a_change(terms: Terms, story: list[Facts]) -> None:
    judge = Judge(terms)
    before = judge.nothing_yet()
    for moment in story:
        verdict = judge.judge(moment)
        changed = verdict.downtime_limit_ms, verdict.throttle_percent
        acts = verdict.kind in (RAISE, THROTTLE, SWITCH_OVER)
        assert acts is (changed != (before.downtime_limit_ms, before.throttle_percent))
        before = verdict


def test_the_advice_follows_what_rounds_began_with_not_what_is_left_of_the_last_one() -> None:
    judge = Judge(Terms(max_downtime_ms=20, allowed_downtime_ms=10_000, max_duration_s=20))
    for number in (1, 2, 3):
        judge.judge(facts(number, 110))
    assert "raise --max-downtime to 1300" in judge.expired(facts(3, 1)).hint.lower()
    assert "1 MB were left in round 3" in judge.expired(facts(3, 1)).text
    assert "allow it more time" in Judge(Terms(max_downtime_ms=20)).expired(facts(1, 1)).hint.lower()
