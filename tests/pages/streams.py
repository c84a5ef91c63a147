"""QEMU streams made by hand: a builder that also knows what a decoder must find, and hypothesis strategies."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np
from hypothesis import strategies as st

from relocd.pages.items import PAGE_SIZE, Item, PageRun, ZeroRun

Seen = tuple[str, int, bytes | None, bool]
"""A page as it goes by: block, number, content (None: zero page), whether the block was spelled out."""

RAM_SECTION = 2


class StreamBuilder:
    """Writes a stream piece by piece; ``seen`` is what a decoder has to report of it."""

    def __init__(self, machine: bytes = b"pc-q35-7.2") -> None:
        self.bytes = bytearray(b"QEVM" + struct.pack(">I", 3))
        self.bytes += b"\x07" + struct.pack(">I", len(machine)) + machine
        self.seen: list[Seen] = []
        self._block: str | None = None

    def raw(self, data: bytes) -> StreamBuilder:
        self.bytes += data
        return self

    def command(self, number: int, payload: bytes = b"") -> StreamBuilder:
        return self.raw(b"\x08" + struct.pack(">HH", number, len(payload)) + payload)

    def uuid(self) -> StreamBuilder:
        name = b"configuration/uuid"
        return self.raw(b"\x05" + bytes([len(name)]) + name + struct.pack(">I", 1) + bytes(range(16)))

    def start(self, blocks: dict[str, int], section: int = RAM_SECTION) -> StreamBuilder:
        self.raw(b"\x01" + struct.pack(">I", section) + b"\x03ram" + struct.pack(">II", 0, 4))
        self.raw(struct.pack(">Q", sum(blocks.values()) | 4))
        for name, length in blocks.items():
            self.raw(bytes([len(name)]) + name.encode() + struct.pack(">Q", length))
        return self.end_of_payload(section)

    def part(self, section: int = RAM_SECTION, *, last: bool = False) -> StreamBuilder:
        return self.raw(bytes([3 if last else 2]) + struct.pack(">I", section))

    def end_of_payload(self, section: int = RAM_SECTION) -> StreamBuilder:
        return self.raw(struct.pack(">Q", 0x10) + b"\x7e" + struct.pack(">I", section))

    def page(self, block: str, number: int, content: bytes) -> StreamBuilder:
        self._record(block, number, 0x08, content)
        self.seen.append((block, number, content, self._named))
        return self

    def zero(self, block: str, number: int) -> StreamBuilder:
        self._record(block, number, 0x02, b"\0")
        self.seen.append((block, number, None, self._named))
        return self

    def _record(self, block: str, number: int, flag: int, rest: bytes) -> None:
        self._named = block != self._block
        self._block = block
        word = number * PAGE_SIZE | flag | (0 if self._named else 0x20)
        name = bytes([len(block)]) + block.encode() if self._named else b""
        self.raw(struct.pack(">Q", word) + name + rest)


def seen(items: Sequence[Item]) -> list[Seen]:
    """The pages in decoded items, one by one."""
    found: list[Seen] = []
    for item in items:
        if isinstance(item, PageRun):
            rows = [row.tobytes() for row in item.contents]
            found += [
                (item.block, int(n), row, item.named) for n, row in zip(item.numbers, rows, strict=True)
            ]
        elif isinstance(item, ZeroRun):
            found += [(item.block, int(n), None, item.named) for n in item.numbers]
    return found


BLOCKS = {"pc.ram": 64 * PAGE_SIZE, "/rom@etc/acpi/tables": 8 * PAGE_SIZE, "pc.bios": 4 * PAGE_SIZE}

_blocks = st.sampled_from(sorted(BLOCKS))
_contents = st.binary(min_size=1, max_size=8).map(lambda b: (b * PAGE_SIZE)[:PAGE_SIZE])


@st.composite
def _runs(draw: st.DrawFn, into: StreamBuilder) -> None:
    """A few pages of one kind in a row, as a scan of dirty pages makes them."""
    block = draw(_blocks)
    pages = BLOCKS[block] // PAGE_SIZE
    first = draw(st.integers(0, pages - 1))
    content = draw(st.none() | _contents)
    for number in range(first, min(pages, first + draw(st.integers(1, 5)))):
        if content is None:
            into.zero(block, number)
        else:
            into.page(block, number, content)


@st.composite
def builders(draw: st.DrawFn) -> StreamBuilder:
    """Whole streams: commands here and there, several rounds and sections, device state at the end."""
    stream = StreamBuilder(draw(st.binary(max_size=20)))
    if draw(st.booleans()):
        stream.uuid()
    stream.command(1).command(2, b"\0\0\0\1").start(BLOCKS)
    parts = draw(st.integers(0, 3))
    for number in range(parts + 1):
        if draw(st.booleans()):
            stream.command(11)
        stream.part(last=number == parts)
        for _ in range(draw(st.integers(0, 4))):
            draw(_runs(stream))
        stream.end_of_payload()
    return stream.raw(b"\x04\0\0\0\0\x05timer\0\0\0\0\0\0\0\x02").raw(draw(st.binary(max_size=200)))


streams = builders().map(lambda builder: bytes(builder.bytes))


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """Streams with a few bytes changed, put in or left out."""
    stream = bytearray(draw(streams))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(stream) - 1)))
        stream[at : at + draw(st.integers(0, 2))] = draw(st.binary(max_size=2))
    return bytes(stream)


anything = st.one_of(
    streams, damaged(), st.binary(max_size=300), st.binary(max_size=64).map(lambda b: b"QEVM\0\0\0\3" + b)
)


@st.composite
def cuts(draw: st.DrawFn, data: bytes) -> list[bytes]:
    """Pieces that make up ``data``: what a socket may return."""
    places = draw(st.lists(st.integers(0, len(data)), max_size=12).map(sorted))
    return [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True)]


def bulk(pages: int, *, content: np.ndarray | None = None, blocks: dict[str, int] | None = None) -> bytes:
    """A long stream of one block quickly: ``pages`` pages with the given rows, a named one first."""
    rows = np.zeros((pages, PAGE_SIZE), np.uint8) if content is None else content
    records = np.empty((pages, 8 + PAGE_SIZE), np.uint8)
    words = np.arange(pages, dtype=np.uint64) * np.uint64(PAGE_SIZE) | np.uint64(0x28)
    records[:, :8] = words.astype(">u8").view(np.uint8).reshape(pages, 8)
    records[:, 8:] = rows
    head = StreamBuilder().command(1).start(blocks or {"pc.ram": pages * PAGE_SIZE}).part()
    head.page("pc.ram", 0, bytes(PAGE_SIZE))
    return (
        bytes(head.bytes)
        + records.tobytes()
        + struct.pack(">Q", 0x10)
        + b"\x7e"
        + struct.pack(">I", RAM_SECTION)
    )
