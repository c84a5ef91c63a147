"""Placed or rebuilt, a stream must make the same memory; and nobody may write beside it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relocd.errors import StreamError
from relocd.pages.items import PAGE_SIZE, Item, Octets, PageRun, Span, ZeroRun
from relocd.pages.placement import Placement, Stage
from relocd.pages.qemu_decoder import QemuDecoder
from relocd.pages.qemu_encoder import QemuEncoder
from tests.pages.streams import BLOCKS, RAM_SECTION, StreamBuilder, bulk, cuts, streams
from tests.pages.test_real import GOLDEN, golden

RAM = "pc.ram"
RAM_BYTES = BLOCKS[RAM]


class Store:
    """Memory that remembers what was done to it, and refuses what lies outside."""

    def __init__(self, size_bytes: int) -> None:
        self.bytes = bytearray(size_bytes)
        self.calls = 0

    def write(self, offset: int, contents: Octets) -> None:
        self._put(offset, contents.tobytes())

    def clear(self, offset: int, size: int) -> None:
        self._put(offset, bytes(size))

    def _put(self, offset: int, data: bytes) -> None:
        assert 0 <= offset <= offset + len(data) <= len(self.bytes)
        self.bytes[offset : offset + len(data)] = data
        self.calls += 1


def loaded(stream: bytes) -> dict[str, bytearray]:
    """What a hypervisor has in its memory after such a stream: page after page, the last one wins."""
    decoder = QemuDecoder()
    items, _ = decoder.decode(stream)
    memory = {name: bytearray(size) for name, size in decoder.blocks.items()}
    for item in items:
        if not isinstance(item, Span):
            contents = (
                item.contents
                if isinstance(item, PageRun)
                else np.zeros((len(item.numbers), PAGE_SIZE), np.uint8)
            )
            for number, row in zip(item.numbers.tolist(), contents, strict=True):
                memory[item.block][number * PAGE_SIZE : (number + 1) * PAGE_SIZE] = row.tobytes()
    return memory


def decoded(pieces: list[bytes]) -> list[list[Item]]:
    """A stream's items as they come in these pieces, an item list each."""
    decoder, rest, found = QemuDecoder(), b"", []
    for piece in pieces:
        data = rest + piece
        items, used = decoder.decode(data)
        found.append(items)
        rest = data[used:]
    return [*found, [Span(rest)]] if rest else found


def placed(pieces: list[bytes], size_bytes: int = RAM_BYTES) -> tuple[Placement, Store, bytes]:
    """What became of a stream: the memory, and the bytes that are left for the hypervisor."""
    store = Store(size_bytes)
    placement = Placement(RAM, size_bytes, store)
    encoder = QemuEncoder()
    out = b"".join(bytes(encoder.encode(placement.sift(items))) for items in decoded(pieces))
    return placement, store, out


@given(st.data())
def test_placed_and_rebuilt_make_the_same_memory(data: st.DataObject) -> None:
    stream = data.draw(streams)
    expected = loaded(stream)
    _, store, out = placed(data.draw(cuts(stream)))
    there = loaded(out)
    assert store.bytes == expected[RAM]
    assert there[RAM] == bytes(RAM_BYTES)
    assert {name: there[name] for name in there if name != RAM} == {
        name: expected[name] for name in expected if name != RAM
    }


@given(st.data())
def test_what_is_left_is_the_stream_without_the_pages_of_the_block(data: st.DataObject) -> None:
    stream = data.draw(streams)
    _, _, out = placed(data.draw(cuts(stream)))
    items, _ = QemuDecoder().decode(stream)
    mine = [item for item in items if not isinstance(item, Span) and item.block == RAM]
    rest = [item for item in items if isinstance(item, Span) or item.block != RAM]
    assert out == bytes(QemuEncoder().encode(rest))
    assert len(out) + sum(map(QemuEncoder().encoded_bytes, mine)) == len(stream)


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
@pytest.mark.parametrize("size", [1 << 30, 65536])
def test_a_real_stream_makes_the_same_memory_both_ways(path: object, size: int) -> None:
    stream = golden(path)  # type: ignore[arg-type]
    expected = loaded(stream)
    placement, store, out = placed(
        [stream[at : at + size] for at in range(0, len(stream), size)], len(expected[RAM])
    )
    assert placement.stage is Stage.PLACING
    assert store.bytes == expected[RAM]
    assert any(store.bytes)
    assert len(out) < len(stream) - sum(map(bool, store.bytes))
    assert loaded(out).keys() == expected.keys()
    assert out.endswith(stream[-4096:])


def test_the_newest_content_wins_over_rounds_and_zeros_come_after_contents() -> None:
    old, new = b"\1" * PAGE_SIZE, b"\2" * PAGE_SIZE
    stream = StreamBuilder().start({RAM: RAM_BYTES}).part()
    stream.page(RAM, 0, old).page(RAM, 1, old).page(RAM, 2, old).zero(RAM, 3)  # round 1
    stream.page(RAM, 0, new).zero(RAM, 1).page(RAM, 3, new)  # round 2, in the same section and batch
    stream.end_of_payload().part(last=True).page(RAM, 2, new).zero(RAM, 3).end_of_payload()
    _, store, _ = placed([bytes(stream.bytes)])
    assert store.bytes == new + bytes(PAGE_SIZE) + new + bytes(RAM_BYTES - 3 * PAGE_SIZE)


def test_zero_pages_of_what_was_never_touched_are_not_written() -> None:
    """They would take memory; only where something near them was written before may they hold anything."""
    content = b"\1" * PAGE_SIZE
    stream = StreamBuilder().start({RAM: 64 * PAGE_SIZE}).part()
    stream.page(RAM, 17, content)
    for number in (*range(16), *range(32, 64)):
        stream.zero(RAM, number)
    stream.end_of_payload()
    _, store, _ = placed([bytes(stream.bytes)], 64 * PAGE_SIZE)
    assert store.calls == 1
    stream.part().zero(RAM, 17).end_of_payload()
    _, store, _ = placed([bytes(stream.bytes)], 64 * PAGE_SIZE)
    assert store.bytes == bytes(64 * PAGE_SIZE)
    assert store.calls == 2


def test_everything_before_a_span_is_placed_before_the_span_goes_on() -> None:
    stream = StreamBuilder().start({RAM: RAM_BYTES}).part().page(RAM, 0, b"\1" * PAGE_SIZE).end_of_payload()
    placement, store, _ = placed([bytes(stream.bytes)])
    assert store.bytes[:PAGE_SIZE] == b"\1" * PAGE_SIZE
    assert placement.stage is Stage.PLACING


def test_neighbours_are_placed_at_once() -> None:
    content = np.arange(256, dtype=np.uint8).repeat(PAGE_SIZE).reshape(256, PAGE_SIZE)
    stream = bulk(256, content=content)
    _, store, _ = placed([stream], 256 * PAGE_SIZE)
    assert store.bytes == content.tobytes()
    assert store.calls == 2  # the first page, which is named, and all others


@pytest.mark.parametrize("number", [RAM_BYTES // PAGE_SIZE, RAM_BYTES // PAGE_SIZE + 1, (1 << 52) - 1])
@pytest.mark.parametrize("zero", [False, True])
def test_a_page_outside_the_block_is_refused(number: int, zero: bool) -> None:
    """No decoder reports such a page; a peer that lies can."""
    numbers = np.array([0, number], np.uint64)
    run = ZeroRun(RAM, numbers) if zero else PageRun(RAM, numbers, np.ones((2, PAGE_SIZE), np.uint8))
    placement, store = _begun()
    with pytest.raises(StreamError, match="outside"):
        placement.sift([run])
    assert not store.calls


def _begun() -> tuple[Placement, Store]:
    """A placement that has seen the table of blocks and is in the section of memory."""
    placement, store, _ = placed([bytes(StreamBuilder().start(BLOCKS).part().bytes)])
    return placement, store


_RUN = PageRun(RAM, np.array([1], np.uint64), np.ones((1, PAGE_SIZE), np.uint8))


@pytest.mark.parametrize(
    ("blocks", "reason"),
    [
        ({RAM: RAM_BYTES + PAGE_SIZE}, "a block of another size"),
        ({"mach-virt.ram": RAM_BYTES, RAM: PAGE_SIZE}, "main memory of another name"),
    ],
)
def test_a_block_that_is_not_the_memory_is_rebuilt(blocks: dict[str, int], reason: str) -> None:
    stream = StreamBuilder().start(blocks).part().page(RAM, 0, b"\1" * PAGE_SIZE).end_of_payload()
    placement, store, out = placed([bytes(stream.bytes)])
    assert placement.stage is Stage.REBUILDING, reason
    assert out == bytes(stream.bytes)
    assert not store.calls


@pytest.mark.parametrize(
    "strange",
    [
        b"\x08\x00\x05\x00\x00",  # a command of postcopy
        b"\x01" + (7).to_bytes(4, "big") + b"\x04vfio\0\0\0\0\0\0\0\1",  # another live section
        b"\x02\0\0\0\x09",  # a part of an unknown section
    ],
    ids=["postcopy", "vfio", "section"],
)
def test_what_is_not_understood_before_the_first_page_is_rebuilt(strange: bytes) -> None:
    stream = StreamBuilder().start(BLOCKS).raw(strange).part().page(RAM, 0, b"\1" * PAGE_SIZE)
    placement, store, out = placed([bytes(stream.bytes)])
    assert placement.stage is Stage.REBUILDING
    assert out == bytes(stream.bytes)
    assert not store.calls


@pytest.mark.parametrize(
    "flags", [0x40, 0x100, 0x80, 0x48], ids=["xbzrle", "compressed", "hook", "page and xbzrle"]
)
def test_what_is_not_understood_after_the_first_page_is_an_error(flags: int) -> None:
    stream = StreamBuilder().start(BLOCKS).part().page(RAM, 0, b"\1" * PAGE_SIZE)
    stream.raw((PAGE_SIZE | flags | 0x20).to_bytes(8, "big") + bytes(64))
    with pytest.raises(StreamError, match="cannot be followed"):
        placed([bytes(stream.bytes)])


def test_pages_after_the_end_of_memory_are_an_error() -> None:
    placement, _ = _begun()
    placement.sift([_RUN])
    tail = StreamBuilder().end_of_payload().part(last=True).end_of_payload().bytes
    placement.sift([Span(bytes(tail[tail.index(b"\0\0\0\0\0\0\0\x10") :]))])
    with pytest.raises(StreamError, match="in a place where none can be"):
        placement.sift([_RUN])


def test_pages_in_the_middle_of_something_else_are_an_error() -> None:
    placement, _ = _begun()
    placement.sift([_RUN])
    with pytest.raises(StreamError, match="in a place where none can be"):
        placement.sift([Span(b"\0\0\0"), _RUN])


def test_a_page_that_comes_inside_of_a_span_is_not_passed_by() -> None:
    """A peer that lies could hide a page, which the hypervisor would load at any time after this."""
    record = (8).to_bytes(8, "big") + b"\6pc.ram" + bytes(PAGE_SIZE)
    placement, _ = _begun()
    assert placement.sift([Span(record), _RUN]) != []
    assert placement.stage is Stage.REBUILDING
    placement, _ = _begun()
    placement.sift([_RUN])
    with pytest.raises(StreamError, match="cannot be followed"):
        placement.sift([Span(record)])


def test_device_state_goes_through_as_it_is() -> None:
    tail = b"\x04" + bytes(range(256)) * 40
    stream = StreamBuilder().start(BLOCKS).part(last=True).page(RAM, 0, b"\1" * PAGE_SIZE)
    stream.raw((0x10).to_bytes(8, "big") + b"\x7e" + RAM_SECTION.to_bytes(4, "big") + tail)
    _, _, out = placed([bytes(stream.bytes)])
    assert out.endswith(tail)
