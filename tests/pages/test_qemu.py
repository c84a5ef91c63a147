"""The codec: the law, and what it finds."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relocd.pages.items import PAGE_SIZE, Item, PageRun, Span, ZeroRun
from relocd.pages.qemu_decoder import QemuDecoder
from relocd.pages.qemu_encoder import QemuEncoder
from relocd.pages.qemu_format import RECORD_BYTES_MAX
from tests.pages.streams import BLOCKS, StreamBuilder, anything, builders, bulk, cuts, seen, streams

PAGE = bytes(range(256)) * 16


def through(pieces: list[bytes]) -> tuple[bytes, list[Item], QemuDecoder]:
    """Decode piece by piece, as from a socket, and encode again."""
    decoder, encoder = QemuDecoder(), QemuEncoder()
    items: list[Item] = []
    out = rest = b""
    for piece in pieces:
        data = rest + piece
        found, used = decoder.decode(data)
        rest = data[used:]
        assert len(rest) < RECORD_BYTES_MAX
        out += bytes(encoder.encode(found))
        items += found
    left: list[Item] = [Span(rest)] if rest else []
    return out + bytes(encoder.encode(left)), items + left, decoder


@given(st.data())
def test_the_law_holds_for_anything_in_any_pieces(data: st.DataObject) -> None:
    stream = data.draw(anything)
    out, items, _ = through(data.draw(cuts(stream)))
    assert out == stream
    assert sum(map(QemuEncoder().encoded_bytes, items)) == len(stream)


@settings(max_examples=20)
@given(anything)
def test_the_law_holds_byte_by_byte(stream: bytes) -> None:
    stream = stream[:6000]
    assert through([stream[i : i + 1] for i in range(len(stream))])[0] == stream


@given(streams, st.integers(0, 30000))
def test_the_law_holds_for_streams_cut_off(stream: bytes, size: int) -> None:
    assert through([stream[:size]])[0] == stream[:size]


@given(st.data())
def test_every_page_is_found_in_any_pieces(data: st.DataObject) -> None:
    builder = data.draw(builders())
    _, items, decoder = through(data.draw(cuts(bytes(builder.bytes))))
    assert seen(items) == builder.seen
    assert dict(decoder.blocks) == BLOCKS
    assert decoder.opaque


@given(st.data())
def test_what_is_reported_is_always_inside_an_announced_block(data: st.DataObject) -> None:
    _, items, decoder = through(data.draw(cuts(data.draw(anything))))
    for block, number, _, _ in seen(items):
        assert (number + 1) * PAGE_SIZE <= decoder.blocks[block]


def test_a_long_run_is_one_item_however_long() -> None:
    stream = bulk(3000)
    out, items, decoder = through([stream])
    assert out == stream
    assert [len(i.numbers) for i in items if isinstance(i, PageRun)] == [1, 3000]
    assert not decoder.opaque


def test_a_long_run_of_zero_pages_is_one_item() -> None:
    builder = StreamBuilder().start({"pc.ram": 5000 * PAGE_SIZE}).part()
    for number in range(5000):
        builder.zero("pc.ram", number)
    _, items, _ = through([bytes(builder.end_of_payload().bytes)])
    assert [len(i.numbers) for i in items if isinstance(i, ZeroRun)] == [1, 4999]


def test_contents_are_views_of_what_was_fed() -> None:
    stream = np.frombuffer(bulk(10), np.uint8)
    runs = [i for i in QemuDecoder().decode(stream.data)[0] if isinstance(i, PageRun)]
    assert all(np.shares_memory(run.contents, stream) for run in runs)


def start() -> StreamBuilder:
    return StreamBuilder().start(BLOCKS).part().page("pc.ram", 1, PAGE)


LOST = {
    "another magic": StreamBuilder().raw(b"").bytes.replace(b"QEVM", b"QEVN"),
    "xbzrle": start().raw(struct.pack(">Q", 2 << 12 | 0x60) + b"\1\0\1x").bytes,
    "compressed": start().raw(struct.pack(">Q", 2 << 12 | 0x120) + b"\0\0\0\1x").bytes,
    "multifd flush": start().raw(struct.pack(">Q", 0x200)).bytes,
    "hook": start().raw(struct.pack(">Q", 0x80)).bytes,
    "flags with end": start().raw(struct.pack(">Q", 1 << 12 | 0x10)).bytes,
    "fill byte": start().raw(struct.pack(">Q", 2 << 12 | 0x22) + b"\1").bytes,
    "named fill byte": start().raw(struct.pack(">Q", 2 << 12 | 0x02) + b"\7pc.bios\1").bytes,
    "outside the block": start().raw(struct.pack(">Q", 64 << 12 | 0x28) + PAGE).bytes,
    "unknown block": start().raw(struct.pack(">Q", 0x08) + b"\4vram" + PAGE).bytes,
    "memory size twice": start().raw(struct.pack(">Q", 4096 | 4)).bytes,
    "continue without block": StreamBuilder().start(BLOCKS).part().raw(struct.pack(">Q", 0x28) + PAGE).bytes,
    "packaged command": StreamBuilder().command(7, b"\0\0\0\1").bytes,
    "discard command": StreamBuilder().command(6, b"\0").bytes,
    "another section": StreamBuilder().raw(b"\1\0\0\0\1\5block\0\0\0\0\0\0\0\1").bytes,
    "another version of ram": StreamBuilder().raw(b"\1\0\0\0\2\3ram\0\0\0\0\0\0\0\5").bytes,
    "ram twice": StreamBuilder().start(BLOCKS).start(BLOCKS).bytes,
    "part of another section": StreamBuilder().start(BLOCKS).part(9).bytes,
    "footer of another section": StreamBuilder().start(BLOCKS).raw(b"\x7e\0\0\0\x09").bytes,
    "page size": StreamBuilder().raw(b"\5\x1econfiguration/target-page-bits\0\0\0\1\0\0\0\x0e").bytes,
    "empty block name": StreamBuilder()
    .raw(b"\1\0\0\0\2\3ram" + struct.pack(">IIQ", 0, 4, 4100) + bytes(9))
    .bytes,
    "block too long": StreamBuilder()
    .start({"a": 4096})
    .bytes.replace(b"\1a\0\0\0\0\0\0\x10\0", b"\1a\0\0\0\0\0\1\0\0"),
    "end of file": StreamBuilder().raw(b"\0").bytes,
}


@pytest.mark.parametrize("case", LOST)
def test_what_is_not_understood_ends_understanding(case: str) -> None:
    lost = bytes(LOST[case])
    more = bytes(StreamBuilder().start(BLOCKS).part().page("pc.ram", 3, PAGE).bytes)[18:]
    out, items, decoder = through([lost + more])
    assert decoder.opaque
    assert out == lost + more
    assert all(isinstance(i, Span) or int(i.numbers[0]) != 3 for i in items)


def test_a_list_of_blocks_without_end_is_not_kept() -> None:
    """Ten bytes of the stream would take hundreds in memory."""
    decoder = QemuDecoder()
    stream = bytes(StreamBuilder().start({f"b{number}": PAGE_SIZE for number in range(5000)}).bytes)
    items, used = decoder.decode(stream)
    assert len(decoder.blocks) == 1024
    assert decoder.opaque
    assert bytes(QemuEncoder().encode(items)) == stream[:used] == stream


def test_continue_persists_across_sections_and_commands() -> None:
    builder = (
        start().end_of_payload().command(2, b"\0\0\0\2").part().page("pc.ram", 2, PAGE).zero("pc.ram", 5)
    )
    assert seen(through([bytes(builder.bytes)])[1]) == builder.seen
    assert [named for *_, named in builder.seen] == [True, False, False]


def test_an_incomplete_record_is_not_used() -> None:
    whole = bytes(start().bytes)
    items, used = QemuDecoder().decode(whole + struct.pack(">Q", 2 << 12 | 0x28) + PAGE[:100])
    assert used == len(whole)
    assert len(seen(items)) == 1


def test_items_cannot_be_built_wrong() -> None:
    numbers = np.arange(2, dtype=np.uint64)
    with pytest.raises(ValueError, match="row of content"):
        PageRun("pc.ram", numbers, np.zeros((1, PAGE_SIZE), np.uint8))
    with pytest.raises(ValueError, match="named run exactly one"):
        ZeroRun("pc.ram", numbers, named=True)
    with pytest.raises(ValueError, match="at least one page"):
        ZeroRun("pc.ram", numbers[:0])
    with pytest.raises(ValueError, match="at least one byte"):
        Span(b"")
