"""xl's stream is followed to its very end, whatever it holds, and what it tells by the way is heard."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relocd.drivers.xen.framing import BadStream, Moment, walk
from tests.pages.xen_streams import NORMAL, XenStreamBuilder, whole

TSC_INFO = 8
PAGE = b"x" * 4096


def follow(stream: bytes) -> tuple[int, list[Moment]]:
    """How many bytes were taken, and the moments, in order. Raises BadStream, EOFError."""
    steps, at, moments = walk(), 0, []
    try:
        step = next(steps)
        while True:
            if isinstance(step, Moment):
                moments.append(step)
                step = next(steps)
                continue
            how, size = step
            if at + size > len(stream):
                raise EOFError
            answer = stream[at : at + size] if how == "read" else b""
            at += size
            step = steps.send(answer)
    except StopIteration:
        return at, moments


def migration(*rounds: list[int]) -> XenStreamBuilder:
    """A live migration, each round with these page numbers, one record each."""
    stream = whole()
    for numbers in rounds:
        for number in numbers:
            stream.pages([(NORMAL, number, PAGE)])
    return stream.record(TSC_INFO, bytes(24)).record(9, bytes(100)).end()


def test_a_live_migration_tells_its_rounds_its_suspension_and_its_end() -> None:
    stream = bytes(migration([0, 1, 2], [0, 2], [1]).end().bytes)
    taken, moments = follow(stream + b"what xl says next")
    assert taken == len(stream)
    assert moments.count(Moment.ROUND) == 3
    assert moments.count(Moment.PAGES) == 6
    assert moments[0] is Moment.BEGUN
    assert moments[-2:] == [Moment.SUSPENDED, Moment.ENDED]


def test_records_that_come_before_the_pages_are_no_suspension() -> None:
    _, moments = follow(bytes(whole().record(2, bytes(8)).record(3, bytes(64)).end().end().bytes))
    assert moments == [Moment.BEGUN, Moment.ENDED]


def test_records_of_libxl_after_the_context_belong_to_the_stream() -> None:
    stream = bytes(migration([0]).record(2, b"x" * 13).record(3, b"y" * 100).end().bytes)
    assert follow(stream + b"\0" * 64)[0] == len(stream)


@given(st.lists(st.lists(st.integers(0, 50), min_size=1, max_size=5), min_size=1, max_size=4), st.data())
def test_a_stream_that_is_cut_anywhere_has_no_end(rounds: list[list[int]], data: st.DataObject) -> None:
    stream = bytes(migration(*rounds).end().bytes)
    assert follow(stream)[0] == len(stream)
    with pytest.raises(EOFError):
        follow(stream[: data.draw(st.integers(0, len(stream) - 1))])


@pytest.mark.parametrize(
    "stream",
    [
        b"this is no guest" * 10,
        bytes(XenStreamBuilder().xl().bytes[:44]) + b"\xff" * 4 + bytes(100),
        bytes(whole().bytes) + b"\x01\0\0\0" + b"\xff" * 4 + bytes(100),
    ],
    ids=["something else", "huge configuration", "huge record"],
)
def test_what_xl_does_not_write_is_refused(stream: bytes) -> None:
    with pytest.raises(BadStream):
        follow(stream)
