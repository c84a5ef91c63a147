"""Batches: whatever goes in comes out, and nothing else is taken for a batch."""

from __future__ import annotations

import contextlib
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relocd.errors import StreamError
from relocd.pages import items as items_of
from relocd.pages.batch import (
    BARE_ZERO_PAGES_MAX,
    BUFFER_BYTES,
    DESCRIPTOR_BYTES,
    TABLE_NUMBERS_MAX,
    TARGET_BYTES,
    ZERO_PAGES_MAX,
    BatchBuilder,
    decode_batch,
)
from relocd.pages.codecs import CODECS
from relocd.pages.items import PAGE_SIZE, BarePages, Item, NumberTable, PageRun, Span, ZeroRun
from relocd.pages.limits import BATCH_BYTES_MAX
from relocd.pages.qemu_decoder import QemuDecoder
from relocd.pages.qemu_encoder import QemuEncoder
from relocd.pages.stream_format import StreamFormat
from tests.pages import xen_streams
from tests.pages.streams import anything, bulk

_numbers = st.lists(st.integers(0, (1 << 52) - 1), min_size=1, max_size=6) | st.integers(0, 1000).map(
    lambda first: list(range(first, first + 5))
)
_names = st.sampled_from(["pc.ram", "/rom@etc/acpi/rsdp", "x" * 255])


def _pages(block: str, numbers: list[int]) -> PageRun:
    contents = np.repeat(np.array(numbers, np.uint64).astype(np.uint8), PAGE_SIZE).reshape(-1, PAGE_SIZE)
    return PageRun(block, np.array(numbers, np.uint64), contents, named=len(numbers) == 1)


def _bare(filled: list[bool]) -> BarePages:
    count = sum(filled)
    rows = np.repeat(np.arange(1, count + 1, dtype=np.uint8), PAGE_SIZE).reshape(-1, PAGE_SIZE)
    return BarePages(np.array(filled, np.bool_), rows)


items = st.lists(
    st.binary(min_size=1, max_size=300).map(Span)
    | st.builds(_pages, _names, _numbers)
    | st.builds(lambda b, n: ZeroRun(b, np.array(n, np.uint64)), _names, _numbers)
    | _numbers.map(lambda n: NumberTable(np.array(n, np.uint64)))
    | st.lists(st.booleans(), min_size=1, max_size=20).map(_bare),
    min_size=1,
    max_size=8,
)


def pack(given_items: list[Item]) -> list[bytes]:
    """Batches for these items, as many as it takes."""
    batches, builder = [], BatchBuilder(memoryview(bytearray(BUFFER_BYTES)))
    for item in given_items:
        rest = builder.add(item)
        while rest is not None:
            batches.append(bytes(builder.seal()))
            builder = BatchBuilder(memoryview(bytearray(BUFFER_BYTES)))
            rest = builder.add(rest)
    return batches if builder.empty else [*batches, bytes(builder.seal())]


def told(item: Item) -> tuple[object, ...]:
    """All that an item says, to be compared."""
    match item:
        case Span(data=data):
            return Span, bytes(data)
        case NumberTable(numbers=numbers):
            return NumberTable, numbers.tolist()
        case BarePages(filled=filled, contents=contents):
            return BarePages, filled.tolist(), contents.tobytes()
        case ZeroRun():
            return ZeroRun, item.block, item.named, item.numbers.tolist()
        case PageRun(contents=contents):
            return PageRun, item.block, item.named, item.numbers.tolist(), contents.tobytes()


def encoded(given_items: list[Item]) -> bytes:
    return bytes(QemuEncoder().encode(given_items))


@given(items)
def test_items_come_back_as_they_were(given_items: list[Item]) -> None:
    (batch,) = pack(given_items)
    assert list(map(told, decode_batch(batch))) == list(map(told, given_items))


def survives(stream: bytes, stream_format: StreamFormat) -> list[bytes]:
    """Take a stream apart, into batches and out of them, and compare; return the batches."""
    codec = CODECS[stream_format]
    items, used = codec.decoder().decode(stream)
    batches = pack([*items, Span(stream[used:])] if used < len(stream) else items)
    encoder = codec.encoder()
    assert b"".join(bytes(encoder.encode(decode_batch(batch))) for batch in batches) == stream
    return batches


@given(anything)
def test_a_stream_survives_batches(stream: bytes) -> None:
    survives(stream, StreamFormat.QEMU)


@given(xen_streams.anything)
def test_a_stream_of_xen_survives_batches(stream: bytes) -> None:
    survives(stream, StreamFormat.XEN)


@given(st.binary(min_size=1, max_size=300))
def test_a_stream_that_is_not_looked_at_survives_batches(stream: bytes) -> None:
    survives(stream, StreamFormat.OPAQUE)


def test_bare_pages_are_cut_where_a_batch_is_full() -> None:
    rows = np.zeros((6000, PAGE_SIZE), np.uint8)
    rows[::3] = 5
    batches = survives(xen_streams.bulk(rows), StreamFormat.XEN)
    assert len(batches) == 2000 * PAGE_SIZE // TARGET_BYTES + 1
    assert max(map(len, batches)) <= BUFFER_BYTES


def test_bare_zero_pages_cost_bits_and_are_limited() -> None:
    batches = survives(xen_streams.bulk(np.zeros((5000, PAGE_SIZE), np.uint8)), StreamFormat.XEN)
    assert len(batches) == 5000 // BARE_ZERO_PAGES_MAX + 1
    assert sum(map(len, batches)) < 2500


def test_numbers_of_a_batch_are_limited() -> None:
    table = NumberTable(np.arange(TABLE_NUMBERS_MAX + 5, dtype=np.uint64))
    found = [item for batch in pack([table]) for item in decode_batch(batch)]
    assert [len(item.numbers) for item in found if isinstance(item, NumberTable)] == [TABLE_NUMBERS_MAX, 5]


def test_scattered_numbers_stay_inside_the_room_for_descriptors() -> None:
    table = NumberTable(np.arange(0, 3 * DESCRIPTOR_BYTES, 7, dtype=np.uint64))
    batches = pack([table])
    assert all(len(batch) <= DESCRIPTOR_BYTES + 16 for batch in batches)
    found = [item for batch in batches for item in decode_batch(batch) if isinstance(item, NumberTable)]
    assert np.array_equal(np.concatenate([item.numbers for item in found]), table.numbers)


def test_an_encoder_refuses_items_of_another_format() -> None:
    with pytest.raises(StreamError, match="no item BarePages"):
        QemuEncoder().encode([_bare([True])])
    with pytest.raises(StreamError, match="no item PageRun"):
        CODECS[StreamFormat.OPAQUE].encoder().encode([_pages("pc.ram", [1])])


def test_a_batch_ends_at_its_target_and_the_rest_goes_on() -> None:
    stream = bulk(200)
    batches = pack(QemuDecoder().decode(stream)[0])
    assert [len(b) <= BUFFER_BYTES for b in batches] == [True] * 2
    assert b"".join(encoded(decode_batch(batch)) for batch in batches) == stream


def test_a_batch_may_be_told_to_be_smaller() -> None:
    pages = 100
    builder = BatchBuilder(memoryview(bytearray(BUFFER_BYTES)), 32 << 10)
    (item,) = [
        item for item in QemuDecoder().decode(bulk(pages))[0] if isinstance(item, PageRun) and not item.named
    ]
    rest = builder.add(item)
    assert builder.worth_sending
    assert builder.pages == (32 << 10) // PAGE_SIZE
    assert isinstance(rest, PageRun)
    assert len(rest.numbers) == len(item.numbers) - builder.pages


def test_a_span_longer_than_a_batch_is_cut() -> None:
    data = bytes(range(256)) * (TARGET_BYTES // 128)
    batches = pack([Span(data)])
    assert len(batches) == 2
    assert b"".join(encoded(decode_batch(batch)) for batch in batches) == data


def test_zero_pages_cost_bytes_not_pages() -> None:
    (batch,) = pack([ZeroRun("pc.ram", np.arange(ZERO_PAGES_MAX, dtype=np.uint64))])
    assert len(batch) < 64


def test_zero_pages_of_a_batch_are_limited() -> None:
    run = ZeroRun("pc.ram", np.arange(ZERO_PAGES_MAX + 1, dtype=np.uint64))
    first, second = pack([run])
    assert encoded(decode_batch(first)) + encoded(decode_batch(second)) == encoded([run])


def test_scattered_pages_stay_inside_the_room_for_descriptors() -> None:
    run = ZeroRun("pc.ram", np.arange(0, 60000, 2, dtype=np.uint64))
    spans: list[Item] = [Span(b"x"), run] * 2
    batches = pack(spans)
    assert all(len(batch) <= DESCRIPTOR_BYTES + 16 for batch in batches)
    assert b"".join(encoded(decode_batch(batch)) for batch in batches) == encoded(spans)


def test_many_small_spans_stay_inside_the_room_for_descriptors() -> None:
    spans: list[Item] = [Span(b"ab")] * (DESCRIPTOR_BYTES // 4)
    batches = pack(spans)
    assert len(batches) > 1
    assert b"".join(encoded(decode_batch(batch)) for batch in batches) == b"ab" * len(spans)


def test_the_builder_counts_pages() -> None:
    builder = BatchBuilder(memoryview(bytearray(BUFFER_BYTES)))
    builder.add(_pages("pc.ram", [1, 2, 3]))
    builder.add(ZeroRun("pc.ram", np.arange(7, dtype=np.uint64)))
    assert (builder.pages, builder.zero_pages) == (3, 7)
    added: list[Item] = [_bare([True, False, False, True]), NumberTable(np.zeros(9, np.uint64)), Span(b"x")]
    assert [builder.add(item) for item in added] == [None] * 3
    assert (builder.pages, builder.zero_pages) == (5, 9)
    assert (sum(map(items_of.pages, added)), sum(map(items_of.zero_pages, added))) == (2, 2)


def test_many_zero_pages_make_a_batch_worth_sending() -> None:
    builder = BatchBuilder(memoryview(bytearray(BUFFER_BYTES)))
    builder.add(_bare([False] * (BARE_ZERO_PAGES_MAX // 2 - 1)))
    assert not builder.worth_sending
    builder.add(_bare([False]))
    assert builder.worth_sending


@given(st.binary(max_size=200))
def test_any_bytes_are_a_batch_or_an_error(data: bytes) -> None:
    with contextlib.suppress(StreamError):
        decode_batch(data)


@given(items, st.data())
def test_damaged_batches_are_a_batch_or_an_error(given_items: list[Item], data: st.DataObject) -> None:
    batch = bytearray(pack(given_items)[0])
    tail = min(len(batch), 400)
    for _ in range(data.draw(st.integers(1, 3))):
        batch[len(batch) - data.draw(st.integers(1, tail))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(StreamError):
        decode_batch(batch)


def descriptor(
    kind: int, named: int, name: bytes, count: int, ranges: bytes = b"", reserved: int = 0
) -> bytes:
    return struct.pack("!BBBBI", kind, named, len(name), reserved, count) + name + ranges


def batch(contents: bytes, *descriptors: bytes) -> bytes:
    joined = b"".join(descriptors)
    return contents + joined + struct.pack("!II", len(descriptors), len(joined))


def pages(start: int, count: int) -> bytes:
    return struct.pack("!QI", start, count)


WRONG = {
    "too short": (b"1234567", "too short"),
    "too long": (bytes(BATCH_BYTES_MAX + 1), "too long"),
    "no items": (batch(b"", b"")[:-8] + bytes(8), "no items"),
    "descriptors longer than the batch": (b"abc" + struct.pack("!II", 1, 4), "longer than itself"),
    "unknown kind": (batch(b"", descriptor(6, 0, b"a", 1, pages(0, 1))), "unknown kind 6"),
    "kind zero": (batch(b"", descriptor(0, 0, b"a", 1, pages(0, 1))), "unknown kind 0"),
    "named is not a boolean": (batch(b"", descriptor(3, 2, b"a", 1, pages(0, 1))), "too much"),
    "reserved byte": (batch(b"x", descriptor(1, 0, b"", 1, reserved=1)), "too much"),
    "empty span": (batch(b"", descriptor(1, 0, b"", 0)), "says nothing"),
    "span with a name": (batch(b"x", descriptor(1, 0, b"a", 1)), "too much"),
    "table with a name": (batch(b"", descriptor(4, 0, b"a", 1, pages(0, 1))), "too much"),
    "table of nothing": (batch(b"", descriptor(4, 0, b"", 1, pages(0, 0))), "announces 0 numbers"),
    "too many numbers": (
        batch(b"", *[descriptor(4, 0, b"", 1, pages(0, TABLE_NUMBERS_MAX - 1))] * 2),
        "where 1 are possible",
    ),
    "bare pages with a name": (batch(b"", descriptor(5, 0, b"a", 1, b"\0")), "too much"),
    "bare pages that are not there": (batch(b"", descriptor(5, 0, b"", 1, b"\2")), "not there"),
    "bare pages without contents": (batch(b"", descriptor(5, 0, b"", 2, b"\1")), "less than its items"),
    "4 billion bare pages": (batch(b"", descriptor(5, 0, b"", 0xFFFFFFFF)), "announces 4294967295 bare"),
    "too many bare zero pages": (
        batch(bytes(PAGE_SIZE), descriptor(5, 0, b"", BARE_ZERO_PAGES_MAX + 1, bytes(257))),
        "announces 2049 zero pages where 2048 are possible",
    ),
    "too many bare zero pages together": (
        batch(b"", *[descriptor(5, 0, b"", BARE_ZERO_PAGES_MAX - 8, bytes(255))] * 2),
        "announces 2040 bare",
    ),
    "cut inside the flags of bare pages": (batch(b"", descriptor(5, 0, b"", 9, b"\0")), "inside a desc"),
    "run without a name": (batch(b"", descriptor(3, 0, b"", 1, pages(0, 1))), "in letters"),
    "name outside ASCII": (batch(b"", descriptor(3, 0, b"\xff", 1, pages(0, 1))), "in letters"),
    "named run of two": (batch(b"", descriptor(3, 1, b"a", 1, pages(0, 2))), "more than one page"),
    "range of nothing": (
        batch(b"", descriptor(3, 0, b"a", 2, pages(0, 1) + pages(5, 0))),
        "announces 1 numbers",
    ),
    "too many zero pages": (
        batch(b"", descriptor(3, 0, b"a", 1, pages(0, ZERO_PAGES_MAX + 1))),
        "announces 32769",
    ),
    "too many zero pages together": (
        batch(b"", *[descriptor(3, 0, b"a", 1, pages(0, ZERO_PAGES_MAX - 1))] * 2),
        "where 1 are possible",
    ),
    "4 billion zero pages": (
        batch(b"", descriptor(3, 0, b"a", 1, pages(0, 0xFFFFFFFF))),
        "announces 4294967295",
    ),
    "pages without contents": (batch(b"", descriptor(2, 0, b"a", 1, pages(0, 1))), "where 0 are possible"),
    "page number too high": (batch(b"", descriptor(3, 0, b"a", 1, pages(1 << 52, 1))), "no guest"),
    "page number runs too high": (
        batch(b"", descriptor(3, 0, b"a", 1, pages((1 << 52) - 1, 2))),
        "no guest",
    ),
    "page number near overflow": (
        batch(b"", descriptor(3, 0, b"a", 1, pages((1 << 64) - 1, 1))),
        "no guest",
    ),
    "span longer than the contents": (batch(b"x", descriptor(1, 0, b"", 2)), "less than its items"),
    "contents nobody described": (batch(b"xy", descriptor(1, 0, b"", 1)), "more than its items"),
    "descriptor bytes nobody counted": (
        b"x" + descriptor(1, 0, b"", 1) + b"?" + struct.pack("!II", 1, 9),
        "more than",
    ),
    "cut inside a descriptor": (
        b"x" + descriptor(1, 0, b"", 1)[:-1] + struct.pack("!II", 1, 7),
        "inside a desc",
    ),
    "cut inside ranges": (batch(b"", descriptor(3, 0, b"a", 2, pages(0, 1))), "inside a desc"),
    "more items than descriptors": (
        b"x" + descriptor(1, 0, b"", 1) + struct.pack("!II", 2, 8),
        "inside a desc",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_batch_is_refused_with_a_reason(case: str) -> None:
    data, reason = WRONG[case]
    with pytest.raises(StreamError, match=reason):
        decode_batch(data)
