"""Window and digest: the one order of the stream."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relocd.errors import StreamError
from relocd.pages.digest import StreamDigest, batch_digest
from relocd.pages.window import Window


@given(st.lists(st.integers(0, 7), min_size=1, max_size=60))
def test_whatever_the_lanes_do_the_order_comes_back(picks: list[int]) -> None:
    """Frames are sent from the eight lowest that are left, in any order: what eight lanes can do."""
    window: Window[int] = Window(8)
    left, out = list(range(len(picks))), []
    for pick in picks:
        sendable = [sequence for sequence in left if window.admits(sequence)]
        sequence = sendable[pick % len(sendable)]
        left.remove(sequence)
        out += window.put(sequence, sequence)
    assert out == list(range(len(picks)))
    assert window.next == len(picks)


def test_a_sequence_comes_once() -> None:
    window: Window[str] = Window(4)
    assert window.put(0, "a") == ["a"]
    assert window.put(2, "c") == []
    for sequence in (0, 2):
        with pytest.raises(StreamError, match="came twice"):
            window.put(sequence, "again")


def test_nothing_is_held_beyond_the_window() -> None:
    window: Window[str] = Window(4)
    assert window.admits(3)
    assert not window.admits(4)
    with pytest.raises(StreamError, match="too far ahead"):
        window.put(4, "e")


def chain(*batches: bytes) -> str:
    digest = StreamDigest()
    for sequence, data in enumerate(batches):
        digest.add(sequence, batch_digest(data))
    return digest.hexdigest()


def test_the_digest_tells_order_and_content_apart() -> None:
    known = {chain(b"a", b"b"), chain(b"b", b"a"), chain(b"ab"), chain(b"a"), chain(), chain(b"a", b"b", b"")}
    assert len(known) == 6
    assert chain(b"a", b"b") in known


def test_the_digest_tells_sequences_apart() -> None:
    first, second = StreamDigest(), StreamDigest()
    first.add(0, batch_digest(b"a"))
    second.add(1, batch_digest(b"a"))
    assert first.digest() != second.digest()
    assert first.batches == second.batches == 1
    assert len(first.hexdigest()) == 32
