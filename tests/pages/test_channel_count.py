"""How many channels, by link and limit."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relocd.pages.channel_count import CHANNELS, channel_count
from relocd.pages.limits import CHANNELS_MAX, LANES_MAX

MIB = 1 << 20

TABLE = [
    # Mbit/s, limit in bytes/s, channels
    (None, 0, CHANNELS),
    (1000, 0, CHANNELS),
    (100_000, 0, CHANNELS),
    (999, 0, 0),
    (10, 0, 0),
    (1, 0, 0),
    (None, 1, 0),
    (None, 100 * MIB - 1, 0),
    (None, 100 * MIB, CHANNELS),
    (10_000, 100 * MIB - 1, 0),
    (10_000, 1000 * MIB, CHANNELS),
    (100, 1000 * MIB, 0),
]


@pytest.mark.parametrize(("link_mbit_s", "limit_bytes_s", "channels"), TABLE)
def test_channels_are_for_fast_links_without_a_low_limit(
    link_mbit_s: int | None, limit_bytes_s: int, channels: int
) -> None:
    assert channel_count(link_mbit_s, limit_bytes_s) == channels


@given(st.integers(1, 1_000_000), st.integers(1, 1 << 40))
def test_what_is_not_known_or_limited_is_no_reason_against_them(link_mbit_s: int, limit_bytes_s: int) -> None:
    by_link, by_limit = channel_count(link_mbit_s, 0), channel_count(None, limit_bytes_s)
    assert channel_count(link_mbit_s, limit_bytes_s) == min(by_link, by_limit)


def test_their_number_leaves_a_lane_for_the_main_stream() -> None:
    assert 0 < CHANNELS <= CHANNELS_MAX < LANES_MAX
