"""Shares of the host's bandwidth: never more than there is, nobody starves, and nothing is left lying."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from relocd.convergence.shares import fair_shares

CAPS = st.dictionaries(st.integers(), st.integers(0, 1 << 40), min_size=1, max_size=20)
TOTALS = st.integers(20, 1 << 40)


def test_equal_shares() -> None:
    assert fair_shares(100, {"a": 0, "b": 0}) == {"a": 50, "b": 50}


def test_what_one_may_not_use_goes_to_the_others() -> None:
    assert fair_shares(100, {"a": 10, "b": 0, "c": 60}) == {"a": 10, "b": 45, "c": 45}


def test_without_a_total_each_has_its_own_cap() -> None:
    assert fair_shares(0, {"a": 10, "b": 0}) == {"a": 10, "b": 0}
    assert fair_shares(100, {}) == {}


def test_one_that_is_alone_has_all_that_it_may() -> None:
    assert fair_shares(100, {"a": 0}) == {"a": 100}
    assert fair_shares(100, {"a": 300}) == {"a": 100}
    assert fair_shares(100, {"a": 30}) == {"a": 30}


def test_a_share_never_becomes_no_limit() -> None:
    assert fair_shares(1, {"a": 0, "b": 0}) == {"a": 1, "b": 1}


@given(TOTALS, CAPS)
def test_no_more_than_the_total_and_no_more_than_ones_cap(total: int, caps: dict[int, int]) -> None:
    shares = fair_shares(total, caps)
    assert shares.keys() == caps.keys()
    assert sum(shares.values()) <= total
    assert all(share <= caps[key] for key, share in shares.items() if caps[key])


@given(TOTALS, CAPS)
def test_nobody_gets_less_than_an_equal_share_but_by_its_own_cap(total: int, caps: dict[int, int]) -> None:
    equal = total // len(caps)
    for key, share in fair_shares(total, caps).items():
        assert share >= min(equal, caps[key] or equal) >= 1


@given(TOTALS, CAPS)
def test_nothing_is_left_that_somebody_could_use(total: int, caps: dict[int, int]) -> None:
    shares = fair_shares(total, caps)
    hungry = [key for key, share in shares.items() if not caps[key] or share < caps[key]]
    assert not hungry or total - sum(shares.values()) < len(caps)


@given(TOTALS, CAPS, st.integers(0, 1 << 40))
def test_one_more_never_leaves_more_for_the_others(total: int, caps: dict[int, int], cap: int) -> None:
    before, after = fair_shares(total, caps), fair_shares(total, caps | {-1: cap})
    assert all(after[key] <= before[key] + len(caps) for key in caps if key != -1)
