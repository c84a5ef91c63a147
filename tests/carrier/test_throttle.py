"""The limit on bytes per second."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relocd.carrier.throttle import BURST_S, Throttle, TokenBucket
from tests.carrier.carriers import PATIENCE_S


@given(st.integers(1, 10**9), st.lists(st.integers(1, 10**6), min_size=1, max_size=30))
def test_no_more_than_the_limit_goes_over_time(bytes_per_s: int, sizes: list[int]) -> None:
    bucket, now_s, sent = TokenBucket(), 1000.0, 0
    bucket.limit(bytes_per_s)
    for size in sizes:
        now_s += bucket.take(size, now_s)
        assert sent <= (now_s - 1000.0 + BURST_S) * bytes_per_s * 1.000001
        sent += size


@given(st.lists(st.integers(1, 10**6), min_size=1, max_size=30))
def test_without_a_limit_nothing_waits(sizes: list[int]) -> None:
    bucket = TokenBucket()
    assert [bucket.take(size, 5.0) for size in sizes] == [0.0] * len(sizes)


def test_rest_is_credited_a_little() -> None:
    bucket = TokenBucket()
    bucket.limit(1000)
    assert bucket.take(100, 10.0) == 0.0
    assert bucket.take(100, 10.0) == pytest.approx(0.1 - BURST_S)
    assert bucket.take(100, 999.0) == 0.0


def test_a_new_limit_forgives_what_was_put_off() -> None:
    bucket = TokenBucket()
    bucket.limit(1)
    bucket.take(10**9, 0.0)
    assert bucket.take(1, 0.0) > 10**8
    bucket.limit(2)
    assert bucket.take(1, 0.0) == 0.0


def test_lifting_the_limit_lets_those_who_wait_go() -> None:
    throttle = Throttle()
    throttle.limit(1)
    throttle.wait(10**9)
    waiting = threading.Thread(target=throttle.wait, args=(1,), daemon=True)
    waiting.start()
    waiting.join(0.05)
    assert waiting.is_alive()
    throttle.limit(0)
    waiting.join(PATIENCE_S)
    assert not waiting.is_alive()
