"""Xen's codec: the law, and what it finds."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relocd.errors import StreamError
from relocd.pages.items import PAGE_SIZE, BarePages, Item, NumberTable, Span, ZeroRun
from relocd.pages.xen_decoder import XenDecoder
from relocd.pages.xen_encoder import XenEncoder
from relocd.pages.xen_format import ENTRIES_MAX, REST_BYTES_MAX
from tests.pages.streams import cuts
from tests.pages.xen_streams import (
    INVALID,
    NORMAL,
    XenStreamBuilder,
    anything,
    builders,
    bulk,
    seen,
    whole,
    xen_streams,
)

PAGE = bytes(range(256)) * 16


def through(pieces: list[bytes]) -> tuple[bytes, list[Item], XenDecoder]:
    """Decode piece by piece, as from a socket, and encode again."""
    decoder, encoder = XenDecoder(), XenEncoder()
    items: list[Item] = []
    out = rest = b""
    for piece in pieces:
        data = rest + piece
        found, used = decoder.decode(data)
        rest = data[used:]
        assert len(rest) < REST_BYTES_MAX
        out += bytes(encoder.encode(found))
        items += found
    left: list[Item] = [Span(rest)] if rest else []
    return out + bytes(encoder.encode(left)), items + left, decoder


@given(st.data())
def test_the_law_holds_for_anything_in_any_pieces(data: st.DataObject) -> None:
    stream = data.draw(anything)
    out, items, _ = through(data.draw(cuts(stream)))
    assert out == stream
    assert sum(map(XenEncoder().encoded_bytes, items)) == len(stream)


@settings(max_examples=20)
@given(anything)
def test_the_law_holds_byte_by_byte(stream: bytes) -> None:
    stream = stream[:6000]
    assert through([stream[i : i + 1] for i in range(len(stream))])[0] == stream


@given(xen_streams, st.integers(0, 30000))
def test_the_law_holds_for_streams_cut_off(stream: bytes, size: int) -> None:
    assert through([stream[:size]])[0] == stream[:size]


@given(st.data())
def test_every_page_is_found_in_any_pieces(data: st.DataObject) -> None:
    builder = data.draw(builders())
    _, items, decoder = through(data.draw(cuts(bytes(builder.bytes))))
    assert seen(items) == builder.seen
    assert decoder.memory_ended
    assert not decoder.lost


def test_a_stream_that_ends_well_is_understood_to_its_end() -> None:
    stream = whole().pages([(NORMAL, 1, PAGE), (NORMAL, 2, None)]).end().record(3, bytes(9)).end()
    _, items, decoder = through([bytes(stream.bytes), b"what xl says next"])
    assert seen(items) == [PAGE, None]
    assert decoder.memory_ended
    assert decoder.opaque
    assert bytes(Span(items[-1].data).data if isinstance(items[-1], Span) else b"") == b"what xl says next"


def test_a_long_stream_takes_a_few_items_a_record() -> None:
    rows = np.zeros((5000, PAGE_SIZE), np.uint8)
    rows[::2] = 7
    out, items, _ = through([bulk(rows)])
    assert out == bulk(rows)
    assert [len(item.filled) for item in items if isinstance(item, BarePages)] == [1024] * 4 + [904]
    assert sum(len(item.contents) for item in items if isinstance(item, BarePages)) == 2500
    assert len(items) == 5 * 3 + 1


def test_pages_that_are_all_filled_are_views_of_what_was_fed() -> None:
    stream = np.frombuffer(bulk(np.ones((10, PAGE_SIZE), np.uint8)), np.uint8)
    (pages,) = [item for item in XenDecoder().decode(stream.data)[0] if isinstance(item, BarePages)]
    assert np.shares_memory(pages.contents, stream)


def test_a_page_with_one_bit_set_is_not_zero() -> None:
    for at in (0, 63, 64, 2047, 4095):
        page = bytearray(PAGE_SIZE)
        page[at] = 0x80
        assert seen(through([bytes(whole().pages([(NORMAL, 1, bytes(page))]).bytes)])[1]) == [bytes(page)]


def test_numbers_in_stretches_are_a_table_others_a_span() -> None:
    stretch = [(INVALID, number, None) for number in range(100, 200)]
    scattered = [(INVALID, number * 7, None) for number in range(100)]
    _, items, _ = through([bytes(whole().pages(stretch).pages(scattered).end().bytes)])
    assert [len(item.numbers) for item in items if isinstance(item, NumberTable)] == [100]


def test_a_record_with_too_many_entries_passes_and_the_next_one_is_looked_at() -> None:
    entries = [(INVALID, number, None) for number in range(ENTRIES_MAX + 1)]
    stream = whole().pages(entries[:-1]).pages(entries).pages([(NORMAL, 1, PAGE)]).end().end()
    out, items, decoder = through([bytes(stream.bytes)])
    assert out == stream.bytes
    assert [len(item.numbers) for item in items if isinstance(item, NumberTable)] == [ENTRIES_MAX]
    assert seen(items) == [PAGE]
    assert not decoder.lost


@pytest.mark.parametrize("kind", [2, 0x0B, 0x13, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF])
def test_records_of_libxc_that_nobody_knows_pass(kind: int) -> None:
    stream = whole().record(kind, b"of the future").pages([(NORMAL, 1, PAGE)])
    assert seen(through([bytes(stream.bytes)])[1]) == [PAGE]


def test_a_stream_of_version_2_is_understood() -> None:
    assert seen(through([bytes(whole(2).pages([(NORMAL, 1, PAGE)]).bytes)])[1]) == [PAGE]


def page_data(count: int, reserved: int, *words: int, pages: int = 0, more: int = 0) -> bytes:
    body = struct.pack(f"<II{len(words)}Q", count, reserved, *words) + PAGE * pages
    return struct.pack("<II", 1, len(body) + more) + body


def start() -> XenStreamBuilder:
    return whole().pages([(NORMAL, 5, PAGE)])


LOST = {
    "another beginning": b"QEVM\0\0\0\3",
    "another program's header": b"Xen saved domain, xm format\n \0 \r" + bytes(16),
    "other byte order": XenStreamBuilder().xl(order=0x04030201).bytes,
    "stream of the time before": XenStreamBuilder().xl(mandatory=1).bytes,
    "unknown flag": XenStreamBuilder().xl(mandatory=7).bytes,
    "no libxl after xl": XenStreamBuilder().xl().libxc().bytes,
    "no libxl after xl, but records": XenStreamBuilder().xl().record(1).bytes,
    "another version of libxl": XenStreamBuilder().libxl(3).bytes,
    "big-endian libxl": XenStreamBuilder().libxl(options=1).bytes,
    "unknown record of libxl": XenStreamBuilder().libxl().record(6, b"x").bytes,
    "context with a body": XenStreamBuilder().libxl().raw(struct.pack("<II", 1, 8)).bytes,
    "checkpoint that was not announced": XenStreamBuilder().libxl().record(4).bytes,
    "no libxc after its announcement": XenStreamBuilder().libxl().record(1).libxl().bytes,
    "version 1 of libxc": XenStreamBuilder().libxc(1).bytes,
    "version 4 of libxc": XenStreamBuilder().libxc(4).bytes,
    "big-endian libxc": XenStreamBuilder().libxc(options=1).bytes,
    "reserved field of libxc": XenStreamBuilder().libxc(reserved=1).bytes,
    "page size": XenStreamBuilder().libxc(page_shift=16).bytes,
    "record too long": start().raw(struct.pack("<II", 9, (128 << 20) + 1)).bytes,
    "end with a body": start().raw(struct.pack("<II", 0, 8)).bytes,
    "checkpoint with a body": start().raw(struct.pack("<II", 14, 8)).bytes,
    "no entries": start().raw(page_data(0, 0)).bytes,
    "reserved field": start().raw(page_data(1, 1, 3, pages=1)).bytes,
    "reserved bits": start().raw(page_data(1, 0, 1 << 52, pages=1)).bytes,
    "type that is none": start().raw(page_data(1, 0, 5 << 60, pages=1)).bytes,
    "type that is none, without a page": start().raw(page_data(1, 0, 5 << 60)).bytes,
    "fewer pages than entries": start().raw(page_data(2, 0, 1, 2, pages=1)).bytes,
    "more pages than entries": start().raw(page_data(1, 0, 1, pages=2)).bytes,
    "body shorter than itself": start().raw(struct.pack("<IIII", 1, 4, 1, 0)).bytes,
    "entries beyond the body": start().raw(page_data(0xFFFFFFFF, 0, pages=1)).bytes,
    "page for an invalid entry": start().raw(page_data(1, 0, INVALID << 60, pages=1)).bytes,
}


LATER = b"later" + bytes(4091)
MORE = {
    "xl": whole(),
    "libxl": XenStreamBuilder().libxl().record(1).libxc(),
    "context": XenStreamBuilder().record(1).libxc(),
    "libxc": XenStreamBuilder().libxc(),
    "record": XenStreamBuilder(),
}
"""What may come next, to be understood if understanding had not ended: one of these goes on at the right place."""


@pytest.mark.parametrize("layer", MORE)
@pytest.mark.parametrize("case", LOST)
def test_what_is_not_understood_ends_understanding(case: str, layer: str) -> None:
    lost = bytes(LOST[case])
    more = bytes(MORE[layer].bytes + XenStreamBuilder().pages([(NORMAL, 3, LATER)]).end().bytes)
    out, items, decoder = through([lost + more])
    assert out == lost + more
    assert decoder.lost
    assert LATER not in seen(items)


def test_what_comes_after_something_that_is_understood_is_found() -> None:
    """So the test before this one could fail."""
    for good, layer in (
        (XenStreamBuilder(), "xl"),
        (XenStreamBuilder().xl(), "libxl"),
        (XenStreamBuilder().libxl(), "context"),
        (XenStreamBuilder().libxl().record(1), "libxc"),
        (start(), "record"),
    ):
        stream = good.bytes + MORE[layer].bytes + XenStreamBuilder().pages([(NORMAL, 3, LATER)]).bytes
        assert LATER in seen(through([bytes(stream)])[1])


def test_nothing_is_kept_of_what_a_record_announces() -> None:
    """A record may announce 128 MiB, xl's header 4 GiB: they pass as they come."""
    for stream in (
        whole().raw(struct.pack("<II", 9, 128 << 20)),
        XenStreamBuilder().raw(bytes(XenStreamBuilder().xl().bytes[:44]) + b"\xff" * 4),
    ):
        decoder = XenDecoder()
        assert decoder.decode(bytes(stream.bytes))[1] == len(stream.bytes)
        assert decoder.decode(b"any piece")[1] == 9
        assert not decoder.opaque


def test_the_encoder_refuses_items_of_another_format() -> None:
    with pytest.raises(StreamError, match="no item ZeroRun"):
        XenEncoder().encode([ZeroRun("pc.ram", np.zeros(1, np.uint64))])
