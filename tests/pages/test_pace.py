"""How large batches may be, by the rate of the lanes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relocd.pages.batch import TARGET_BYTES
from relocd.pages.pace import BATCH_BYTES_MIN, UNDER_WAY_S, Pace, batch_bytes

MBIT_S = 1e6 / 8
RATES = [
    # bytes/s, lanes, bytes
    (0, 1, BATCH_BYTES_MIN),
    (10 * MBIT_S, 1, BATCH_BYTES_MIN),
    (30 * MBIT_S, 1, 62_500),
    (30 * MBIT_S, 2, 37_500),
    (100 * MBIT_S, 1, 208_333),
    (1000 * MBIT_S, 1, TARGET_BYTES),
    (1000 * MBIT_S, 15, 201_613),
    (10_000 * MBIT_S, 15, TARGET_BYTES),
]


@pytest.mark.parametrize(("rate_bytes_s", "lanes", "size"), RATES)
def test_batches_follow_the_rate(rate_bytes_s: float, lanes: int, size: int) -> None:
    assert batch_bytes(rate_bytes_s, lanes) == size


@given(st.floats(0, 1e12), st.integers(1, 15))
def test_what_is_under_way_takes_no_longer_than_allowed(rate_bytes_s: float, lanes: int) -> None:
    size = batch_bytes(rate_bytes_s, lanes)
    assert BATCH_BYTES_MIN <= size <= TARGET_BYTES
    assert size == BATCH_BYTES_MIN or (2 * lanes + 1) * (size - 1) <= rate_bytes_s * UNDER_WAY_S


def send(pace: Pace, clock_s: float, rate_bytes_s: float, duration_s: float) -> float:
    """Send batches as the pace wants them, one after the other; returns the new time."""
    end_s = clock_s + duration_s
    while clock_s < end_s:
        size = pace.batch_bytes
        pace.begin(clock_s)
        clock_s += size / rate_bytes_s
        pace.end(size, clock_s)
    return clock_s


def test_a_link_that_changes_is_followed_both_ways() -> None:
    pace, clock_s = Pace(1), 5.0
    assert not pace.slow
    clock_s = send(pace, clock_s, 10 * MBIT_S, 1.0)
    assert pace.slow
    assert pace.batch_bytes == BATCH_BYTES_MIN
    clock_s = send(pace, clock_s, 100 * MBIT_S, 1.0)
    assert pace.batch_bytes == pytest.approx(208_333, rel=0.01)
    send(pace, clock_s, 1000 * MBIT_S, 1.0)
    assert not pace.slow


def test_a_hypervisor_with_nothing_to_say_is_no_slow_link() -> None:
    pace, clock_s = Pace(1), 0.0
    for _ in range(1000):
        clock_s += 1.0
        pace.begin(clock_s)
        clock_s += 0.001
        pace.end(TARGET_BYTES, clock_s)
    assert not pace.slow


def test_batches_without_content_say_nothing_of_the_link() -> None:
    """A guest's memory begins with gigabytes of zero pages, 128 MiB in a batch of some hundred bytes."""
    pace, clock_s = Pace(1), 0.0
    for _ in range(1000):
        pace.begin(clock_s)
        clock_s += 0.00001
        pace.end(100, clock_s)
    assert not pace.slow


def test_threads_that_send_at_the_same_time_are_counted_once() -> None:
    pace, clock_s = Pace(3), 0.0
    for _ in range(100):
        for _ in range(4):
            pace.begin(clock_s)
        clock_s += 0.01
        for _ in range(4):
            pace.end(25_000, clock_s)  # 10 MB/s in all
    assert pace.batch_bytes == pytest.approx(10e6 * UNDER_WAY_S / 7, rel=0.01)
