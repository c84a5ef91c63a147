"""Goals: medians, ratios, straight lines, and what is not there."""

from __future__ import annotations

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from tests.bench.encrypted import PLAIN
from tests.bench.figures import OWN, Figures
from tests.bench.four import ALONE, AT_ONCE, IN_TURN
from tests.bench.goals import Goal, covered_s, deviation, least, line, middle, ratio, summary
from tests.bench.peer import METHODS
from tests.bench.scenarios import SCENARIOS, TCP, Kind
from tests.bench.xen import XL

ROW = Figures(completed=True, memory_mib=1024, total_s=1.0, wire_bytes=100, sent_bytes=90, rounds=3)


def rows(*times_s: float) -> list[Figures]:
    return [evolve(ROW, total_s=time_s) for time_s in times_s]


def sized(*points: tuple[int, float]) -> list[Figures]:
    return [evolve(ROW, memory_mib=gib * 1024, total_s=time_s) for gib, time_s in points]


def test_a_ratio_is_one_of_medians() -> None:
    runs = {TCP: rows(10, 11, 100), OWN: rows(4, 5, 6, 5.5)}
    assert ratio("total_s", OWN, TCP)(runs) == pytest.approx(5.25 / 11)
    assert ratio("total_s", OWN, TCP, max)(runs) == pytest.approx(6 / 100)


@pytest.mark.parametrize("runs", [{}, {OWN: rows(1)}, {TCP: rows(1)}, {OWN: rows(1), TCP: []}])
def test_without_both_there_is_no_ratio_and_no_verdict(runs: dict[str, list[Figures]]) -> None:
    verdict = Goal("time", ratio("total_s", OWN, TCP), 0.4).judge(runs)
    assert (verdict.value, verdict.reached) == (None, None)


def test_a_move_that_did_not_end_has_no_blackout_to_compare_with() -> None:
    given_up = evolve(ROW, completed=False, blackout_ms=None)
    seen = evolve(ROW, blackout_ms=60.0)
    assert summary([given_up, seen], "blackout_ms") == 60.0
    assert ratio("blackout_ms", OWN, TCP)({OWN: [seen], TCP: [given_up]}) is None


@pytest.mark.parametrize(("limit", "reached"), [(70, True), (70.1, True), (69.9, False)])
def test_a_goal_is_reached_at_its_limit(limit: float, reached: bool) -> None:
    runs = {OWN: [evolve(ROW, blackout_ms=blackout_ms) for blackout_ms in (50.0, 70.0, 90.0)]}
    assert Goal("median", least("blackout_ms"), limit).judge(runs).reached is reached
    assert Goal("worst", least("blackout_ms", of=max), limit).judge(runs).reached is False


def test_a_straight_line_has_no_deviation() -> None:
    fit = line(sized((1, 3), (2, 5), (4, 9), (8, 17)))
    assert fit is not None
    assert [fit.start_s, fit.s_per_gib] == pytest.approx([1, 2])
    assert fit.deviation == pytest.approx(0, abs=1e-9)


def test_a_bent_line_has_one_and_runs_of_one_size_count_by_their_median() -> None:
    bent = sized((1, 1), (2, 4), (4, 16), (8, 64))
    assert (deviation({OWN: bent}) or 0) > 0.5
    assert deviation({OWN: [*sized((1, 3), (1, 3), (1, 99)), *sized((2, 5), (3, 7))]}) == pytest.approx(
        0, abs=1e-9
    )


def test_two_sizes_are_no_line() -> None:
    assert deviation({OWN: sized((1, 3), (2, 5), (2, 6))}) is None
    assert deviation({}) is None


@given(st.lists(st.floats(0.1, 100), min_size=1))
def test_the_run_to_show_is_one_of_them_in_the_middle(times_s: list[float]) -> None:
    shown = middle(rows(*times_s))
    assert sorted(times_s)[(len(times_s) - 1) // 2] == shown.total_s


@pytest.mark.parametrize(
    ("stretches", "covered"),
    [([], 0), ([(0, 2), (3, 4)], 3), ([(0, 2), (1, 4)], 4), ([(0, 9), (1, 2), (3, 10)], 10)],
)
def test_time_covered_counts_once(stretches: list[tuple[float, float]], covered: float) -> None:
    assert covered_s(stretches) == covered


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_goal_of_a_scenario_can_be_judged_by_those_who_are_in_it(name: str) -> None:
    scenario = SCENARIOS[name]
    row = evolve(ROW, cpu_s=1.0, blackout_ms=1.0, private_mib=1.0)
    everyone = [evolve(row, memory_mib=load.memory_mib) for load in scenario.loads]
    names = {
        Kind.PAIRS: [METHODS[peer].name for peer in scenario.peers],
        Kind.FOUR: [ALONE, AT_ONCE, IN_TURN],
        Kind.ENCRYPTED: [PLAIN],
        Kind.XEN: [XL],
    }
    runs = dict.fromkeys([*names[scenario.kind], OWN], everyone)
    assert [goal.name for goal in scenario.goals if goal.judge(runs).reached is None] == []
