"""Flight and inbox: the two rules that keep lanes from waiting for each other for ever."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from relocd.carrier.flight import Flight
from relocd.carrier.inbox import BACKLOG, Arrival, Inbox
from relocd.errors import StreamError
from relocd.pages import frames
from relocd.pages.frames import Kind
from relocd.pages.limits import WINDOW
from tests.carrier.carriers import PATIENCE_S


def waits_until(blocked: Callable[[], object], release: Callable[[], object]) -> None:
    """``blocked`` must not return before ``release``, and must then."""
    thread = threading.Thread(target=blocked, daemon=True)
    thread.start()
    thread.join(0.05)
    assert thread.is_alive()
    release()
    thread.join(PATIENCE_S)
    assert not thread.is_alive()


def arrival(sequence: int) -> Arrival:
    return Arrival(frames.unpack(frames.pack(Kind.FILE, sequence, b"x")), b"x")


def test_sequences_count_up() -> None:
    flight = Flight()
    assert [flight.depart() for _ in range(WINDOW)] == list(range(WINDOW))


def test_none_runs_a_window_ahead_of_the_oldest() -> None:
    flight = Flight()
    for _ in range(WINDOW):
        flight.depart()
    for sequence in range(1, WINDOW):
        flight.arrive(sequence)
    waits_until(flight.depart, lambda: flight.arrive(0))


def test_drain_waits_for_the_last() -> None:
    flight = Flight()
    flight.drain()
    flight.depart()
    waits_until(flight.drain, lambda: flight.arrive(0))


def test_frames_are_claimed_in_order_by_one_at_a_time() -> None:
    inbox = Inbox()
    first, second = arrival(0), arrival(1)
    inbox.put(second)
    assert inbox.claim() is None
    inbox.put(first)
    assert inbox.claim() is first
    assert inbox.claim() is None
    inbox.release()
    assert inbox.claim() is second


def test_a_backlog_holds_further_frames_back() -> None:
    inbox = Inbox()
    for sequence in range(BACKLOG):
        inbox.admit(sequence)
        inbox.put(arrival(sequence))
    waits_until(lambda: inbox.admit(BACKLOG), inbox.claim)


def test_a_window_of_frames_is_admitted_and_no_more() -> None:
    inbox = Inbox()
    for sequence in range(1, WINDOW):
        inbox.admit(sequence)
        inbox.put(arrival(sequence))

    def release() -> None:
        inbox.put(arrival(0))
        while inbox.claim() is not None:
            inbox.release()

    waits_until(lambda: inbox.admit(WINDOW), release)


def test_a_frame_comes_once() -> None:
    inbox = Inbox()
    inbox.put(arrival(3))
    with pytest.raises(StreamError, match="came twice"):
        inbox.put(arrival(3))
