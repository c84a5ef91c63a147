"""Measuring a connection: both sides end in time and at their limits, whatever the other one does."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from relocd.net import gauge

Ends = tuple[socket.socket, socket.socket]
LONG_S = 20.0
SHORT_S = 0.05


@pytest.fixture
def ends() -> Iterator[Ends]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def beside(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_what_is_sent_is_counted_up_to_the_size(ends: Ends) -> None:
    ours, theirs = ends
    size_bytes = 20 << 20
    sender = beside(lambda: gauge.send(ours, size_bytes, LONG_S))
    arrived = gauge.count(theirs, size_bytes, LONG_S)
    sender.join()
    assert 0 < arrived.size_bytes <= size_bytes
    assert 0 < arrived.duration_s < LONG_S


def test_a_peer_that_sends_more_is_not_read_any_further(ends: Ends) -> None:
    ours, theirs = ends
    sender = beside(lambda: gauge.send(ours, 8 << 20, LONG_S))
    assert gauge.count(theirs, 1 << 20, LONG_S).size_bytes <= 1 << 20
    theirs.close()
    sender.join()


def test_a_peer_that_does_not_read_holds_nobody_up(ends: Ends) -> None:
    assert gauge.send(ends[0], 1 << 30, SHORT_S) < 1 << 30


def test_a_peer_that_stops_is_waited_for_no_longer_than_agreed(ends: Ends) -> None:
    ours, theirs = ends
    ours.send(b"x" * 1000)
    arrived = gauge.count(theirs, 1 << 20, SHORT_S)
    assert arrived.size_bytes == 0
    assert arrived.duration_s >= SHORT_S


def test_a_peer_that_never_sends_is_an_error(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gauge, "FIRST_BYTE_S", SHORT_S)
    with pytest.raises(TimeoutError):
        gauge.count(ends[1], 1 << 20, SHORT_S)


def test_a_peer_that_hangs_up_ends_it(ends: Ends) -> None:
    ours, theirs = ends
    ours.close()
    assert gauge.count(theirs, 1 << 20, LONG_S).size_bytes == 0


def test_a_limit_is_kept(ends: Ends) -> None:
    ours, theirs = ends
    limit_bytes_s = 10 * gauge.CHUNK_BYTES
    drained = beside(lambda: gauge.drain(theirs, LONG_S))
    sent = gauge.send(ours, 1 << 30, 0.5, limit_bytes_s)
    ours.close()
    drained.join()
    assert 0 < sent <= limit_bytes_s


@pytest.mark.parametrize("said", [b"a\nb\n", b"x" * 1000])
def test_an_answer_that_is_no_line_is_an_error(ends: Ends, said: bytes) -> None:
    ends[0].sendall(said)
    with pytest.raises(ValueError, match="no line"):
        gauge.read_line(ends[1], LONG_S)


def test_an_answer_that_does_not_come_is_an_error(ends: Ends) -> None:
    with pytest.raises(TimeoutError):
        gauge.read_line(ends[1], SHORT_S)
    ends[0].sendall(b"half")
    ends[0].close()
    with pytest.raises(ConnectionResetError):
        gauge.read_line(ends[1], LONG_S)
