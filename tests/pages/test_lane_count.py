"""How many lanes, by processors and link."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relocd.pages.lane_count import lane_count
from relocd.pages.limits import LANES_MAX

TABLE = [
    # cores, Mbit/s, lanes
    (1, 1000, 1),
    (2, 1000, 1),
    (2, 100_000, 1),
    (2, None, 1),
    (3, None, 1),
    (4, None, 2),
    (64, None, 2),
    (64, 10, 1),
    (64, 1000, 1),
    (64, 2500, 1),
    (64, 5000, 2),
    (4, 10_000, 2),
    (8, 10_000, 4),
    (64, 10_000, 4),
    (8, 25_000, 4),
    (64, 25_000, 10),
    (64, 100_000, LANES_MAX),
    (20, 400_000, 10),
]


@pytest.mark.parametrize(("cores", "link_mbit_s", "lanes"), TABLE)
def test_lanes_follow_cores_and_link(cores: int, link_mbit_s: int | None, lanes: int) -> None:
    assert lane_count(cores, link_mbit_s) == lanes


@given(st.integers(1, 1024), st.none() | st.integers(1, 1_000_000))
def test_there_is_a_lane_and_guests_keep_half_the_cores(cores: int, link_mbit_s: int | None) -> None:
    lanes = lane_count(cores, link_mbit_s)
    assert 1 <= lanes <= LANES_MAX
    assert lanes == 1 or 2 * lanes <= cores
