"""Batches: items that travel together, as one stretch of bytes.

    contents      bytes of spans and pages, in the order of the items
    descriptors   one an item: what it is, its block, its numbers as ranges, which of its pages are zero
    trailer       how many items, how many bytes of descriptors

Contents come first so that they can be gathered straight into the batch's memory while the hypervisor still
writes, before it is known how many descriptors there will be. Page numbers go as (start, count), so a
gigabyte of zero pages takes a few bytes. ``docs/page-stream.md`` has the layout.
"""

from __future__ import annotations

import struct
from typing import Final

import numpy as np
import numpy.typing as npt

from relocd.errors import StreamError
from relocd.pages.items import (
    PAGE_SIZE,
    BarePages,
    Buffer,
    Flags,
    Item,
    Numbers,
    NumberTable,
    Octets,
    PageRun,
    Span,
    ZeroRun,
)
from relocd.pages.limits import BATCH_BYTES_MAX
from relocd.pages.ranges import stretches

TARGET_BYTES: Final = 512 << 10
"""Contents of a batch [bytes], unless the link is slow (``pace``): so many that what Python does for each is little
beside what is done to its bytes; compressed, 2 ms on a link of 1 Gbit/s."""
DESCRIPTOR_BYTES: Final = 64 << 10
"""Descriptors of a batch, at most [bytes]; only pages scattered all over come near it. A receiver makes an object of
each item, so a batch that were all descriptors would take thirty times its size in memory."""
ZERO_PAGES_MAX: Final = 32 << 10
"""Zero pages in a batch. They cost the sender nothing, but the receiver has to write them out again."""
BARE_ZERO_PAGES_MAX: Final = 2 << 10
"""The same for bare pages, which the receiver writes out in full: 8 MiB."""
TABLE_NUMBERS_MAX: Final = 32 << 10
"""Numbers in a batch's tables."""

_DESCRIPTOR: Final = struct.Struct("!BBBBI")
_TRAILER: Final = struct.Struct("!II")
_RANGE: Final = np.dtype([("start", ">u8"), ("count", ">u4")])
_SPAN, _PAGES, _ZEROS, _TABLE, _BARE = 1, 2, 3, 4, 5
_PAGE_NUMBERS: Final = 1 << 52  # so that a page's offset fits in 64 bits

BUFFER_BYTES: Final = TARGET_BYTES + DESCRIPTOR_BYTES + _TRAILER.size
"""Memory that a builder needs."""


class BatchBuilder:
    """Gathers items into memory of its caller's, BUFFER_BYTES of it, until contents come to ``target_bytes``."""

    def __init__(self, memory: memoryview, target_bytes: int = TARGET_BYTES) -> None:
        self.target_bytes = target_bytes
        self._memory: Octets = np.frombuffer(memory, np.uint8)
        self._descriptors = bytearray()
        self._items = 0
        self._contents = 0
        self._bare_zero_pages = 0
        self._table_numbers = 0
        self.pages = 0
        self.zero_pages = 0

    @property
    def empty(self) -> bool:
        """Whether nothing was added yet."""
        return not self._items

    @property
    def worth_sending(self) -> bool:
        """Whether it is at least half full. To fill it up a run would be cut, and then cost twice."""
        return (
            self._contents >= self.target_bytes // 2
            or self.zero_pages >= ZERO_PAGES_MAX // 2
            or self._bare_zero_pages >= BARE_ZERO_PAGES_MAX // 2
        )

    def add(self, item: Item) -> Item | None:
        """Copy an item in, or that part of it for which there is room; return the rest, if any."""
        room = self.target_bytes - self._contents
        match item:
            case Span(data=data):
                size = self._describe_span(min(len(data), room))
                self._append(np.frombuffer(data, np.uint8, size))
                return Span(memoryview(data)[size:]) if size < len(data) else None
            case PageRun(contents=contents):
                count = self._describe_run(_PAGES, item, room // PAGE_SIZE)
                self._append(contents[:count])
                self.pages += count
            case ZeroRun():
                count = self._describe_run(_ZEROS, item, ZERO_PAGES_MAX - self.zero_pages)
                self.zero_pages += count
            case NumberTable(numbers=numbers):
                count = self._describe_table(numbers[: TABLE_NUMBERS_MAX - self._table_numbers])
                return NumberTable(numbers[count:]) if count < len(numbers) else None
            case BarePages(filled=filled, contents=contents):
                count, rows = self._describe_bare(filled, room // PAGE_SIZE)
                self._append(contents[:rows])
                return BarePages(filled[count:], contents[rows:]) if count < len(filled) else None
        return _after(item, count)

    def seal(self) -> memoryview:
        """The finished batch, in the memory given. Nothing may be added afterwards."""
        tail = bytes(self._descriptors) + _TRAILER.pack(self._items, len(self._descriptors))
        end = self._contents + len(tail)
        self._memory[self._contents : end] = np.frombuffer(tail, np.uint8)
        return self._memory[:end].data

    def _describe_span(self, size: int) -> int:
        if not size or self._descriptor_room(0) < 0:
            return 0
        self._descriptors += _DESCRIPTOR.pack(_SPAN, 0, 0, 0, size)
        self._items += 1
        return size

    def _describe_run(self, kind: int, run: PageRun | ZeroRun, most: int) -> int:
        """Write the descriptor for the first pages of a run; return how many these are."""
        name = run.block.encode("ascii")
        range_room = self._descriptor_room(len(name)) // _RANGE.itemsize
        if most <= 0 or range_room <= 0:
            return 0
        ranges = _ranges(run.numbers[:most])[:range_room]
        self._descriptors += _DESCRIPTOR.pack(kind, run.named, len(name), 0, len(ranges))
        self._descriptors += name + ranges.tobytes()
        self._items += 1
        return int(ranges["count"].sum(dtype=np.uint64))

    def _describe_table(self, numbers: Numbers) -> int:
        """Write the descriptor for the first of these numbers; return how many these are."""
        range_room = self._descriptor_room(0) // _RANGE.itemsize
        if not len(numbers) or range_room <= 0:
            return 0
        ranges = _ranges(numbers)[:range_room]
        self._descriptors += _DESCRIPTOR.pack(_TABLE, 0, 0, 0, len(ranges)) + ranges.tobytes()
        self._items += 1
        count = int(ranges["count"].sum(dtype=np.uint64))
        self._table_numbers += count
        return count

    def _describe_bare(self, filled: Flags, most: int) -> tuple[int, int]:
        """Write the descriptor for the first of these pages, of which ``most`` may be filled.

        Return how many these are, and how many of them are filled.
        """
        filled = filled[: max(0, self._descriptor_room(0) * 8)]
        rows = filled.cumsum()
        zeros = np.arange(1, len(filled) + 1) - rows
        zeros_most = BARE_ZERO_PAGES_MAX - self._bare_zero_pages
        count = int(min(rows.searchsorted(most, "right"), zeros.searchsorted(zeros_most, "right")))
        if not count:
            return 0, 0
        flags = np.packbits(filled[:count], bitorder="little").tobytes()
        self._descriptors += _DESCRIPTOR.pack(_BARE, 0, 0, 0, count) + flags
        self._items += 1
        self._bare_zero_pages += int(zeros[count - 1])
        self.zero_pages += int(zeros[count - 1])
        self.pages += int(rows[count - 1])
        return count, int(rows[count - 1])

    def _descriptor_room(self, name_bytes: int) -> int:
        return DESCRIPTOR_BYTES - len(self._descriptors) - _DESCRIPTOR.size - name_bytes

    def _append(self, data: Octets) -> None:
        end = self._contents + data.size
        self._memory[self._contents : end].reshape(data.shape)[:] = data
        self._contents = end


def decode_batch(payload: Buffer) -> list[Item]:
    """The items of a batch; they refer to ``payload``. Raises StreamError for what no builder makes."""
    size = len(payload)
    if not _TRAILER.size <= size <= BATCH_BYTES_MAX:
        raise StreamError(f"a batch of {size} bytes is too short or too long")
    items, descriptor_bytes = _TRAILER.unpack_from(payload, size - _TRAILER.size)
    if not items or descriptor_bytes > size - _TRAILER.size:
        raise StreamError("a batch has no items, or descriptors longer than itself")
    if descriptor_bytes > DESCRIPTOR_BYTES:
        raise StreamError(
            f"a batch has {descriptor_bytes} bytes of descriptors, not {DESCRIPTOR_BYTES} at most"
        )
    return _BatchReader(memoryview(payload), descriptor_bytes).read(items)


class _BatchReader:
    """Reads one batch: descriptors from one place on, contents from another."""

    def __init__(self, payload: memoryview, descriptor_bytes: int) -> None:
        self._payload = payload
        self._end = len(payload) - _TRAILER.size
        self._contents_end = self._at = self._end - descriptor_bytes
        self._content_at = 0
        self._zero_pages = 0
        self._bare_zero_pages = 0
        self._table_numbers = 0

    def read(self, items: int) -> list[Item]:
        found = [self._item() for _ in range(items)]
        if self._at != self._end or self._content_at != self._contents_end:
            raise StreamError("a batch holds more than its items describe")
        return found

    def _item(self) -> Item:
        descriptor = _DESCRIPTOR.unpack_from(self._payload, self._step(_DESCRIPTOR.size))
        kind, named, name_bytes, reserved, count = descriptor
        blockless = kind in (_SPAN, _TABLE, _BARE)
        if named > 1 or reserved or not count or (blockless and (named or name_bytes)):
            raise StreamError("a batch has a descriptor that says nothing, or too much")
        if kind == _SPAN:
            return Span(self._content(count))
        if kind == _TABLE:
            return self._table(count)
        if kind == _BARE:
            return self._bare(count)
        block = self._block(name_bytes)
        numbers = self._numbers(count, self._page_limit(kind))
        if named and len(numbers) != 1:
            raise StreamError("a batch names a block for more than one page")
        if kind == _ZEROS:
            self._zero_pages += len(numbers)
            return ZeroRun(block, numbers, bool(named))
        contents = np.frombuffer(self._content(len(numbers) * PAGE_SIZE), np.uint8)
        return PageRun(block, numbers, contents.reshape(-1, PAGE_SIZE), bool(named))

    def _table(self, count: int) -> NumberTable:
        numbers = self._ranges(count, TABLE_NUMBERS_MAX - self._table_numbers)
        self._table_numbers += len(numbers)
        return NumberTable(numbers)

    def _bare(self, count: int) -> BarePages:
        zeros_most = BARE_ZERO_PAGES_MAX - self._bare_zero_pages
        if count > zeros_most + (self._contents_end - self._content_at) // PAGE_SIZE:
            raise StreamError(f"a batch announces {count} bare pages, more than it can hold")
        start = self._step(-(-count // 8))
        flags = np.frombuffer(self._payload[start : self._at], np.uint8)
        filled = np.unpackbits(flags, bitorder="little")
        if filled[count:].any():
            raise StreamError("a batch tells of pages that are not there")
        rows = int(np.count_nonzero(filled))
        if count - rows > zeros_most:
            raise StreamError(f"a batch announces {count - rows} zero pages where {zeros_most} are possible")
        self._bare_zero_pages += count - rows
        contents = np.frombuffer(self._content(rows * PAGE_SIZE), np.uint8)
        return BarePages(filled[:count].view(np.bool_), contents.reshape(-1, PAGE_SIZE))

    def _page_limit(self, kind: int) -> int:
        if kind == _ZEROS:
            return ZERO_PAGES_MAX - self._zero_pages
        if kind == _PAGES:
            return (self._contents_end - self._content_at) // PAGE_SIZE
        raise StreamError(f"a batch has an item of unknown kind {kind}")

    def _block(self, size: int) -> str:
        start = self._step(size)
        name = bytes(self._payload[start : start + size]).decode("latin-1")
        if not name or not name.isascii() or not name.isprintable():
            raise StreamError("a batch names a block in letters that no block has")
        return name

    def _numbers(self, count: int, limit: int) -> Numbers:
        """Page numbers from ranges."""
        numbers = self._ranges(count, limit)
        if numbers.max() >= _PAGE_NUMBERS:
            raise StreamError("a batch has a page number that no guest can have")
        return numbers

    def _ranges(self, count: int, limit: int) -> Numbers:
        """Expand ranges into numbers; ``limit`` is checked before memory is taken for them."""
        start = self._step(count * _RANGE.itemsize)
        ranges = np.frombuffer(self._payload, _RANGE, count, start)
        starts, counts = ranges["start"].astype(np.uint64), ranges["count"].astype(np.uint64)
        total = int(counts.sum())
        if not counts.all() or total > limit:
            raise StreamError(f"a batch announces {total} numbers where {limit} are possible")
        offsets = np.arange(total, dtype=np.uint64)
        if count == 1:
            return offsets + starts
        before = counts.cumsum() - counts
        return np.repeat(starts - before, counts.astype(np.intp)) + offsets

    def _content(self, size: int) -> memoryview:
        start, self._content_at = self._content_at, self._content_at + size
        if self._content_at > self._contents_end:
            raise StreamError("a batch holds less than its items describe")
        return self._payload[start : self._content_at]

    def _step(self, size: int) -> int:
        start, self._at = self._at, self._at + size
        if self._at > self._end:
            raise StreamError("a batch ends inside a descriptor")
        return start


def _ranges(numbers: Numbers) -> npt.NDArray[np.void]:
    """Ascending stretches of page numbers, in the order given, as they are written down."""
    starts, counts = stretches(numbers)
    ranges = np.empty(len(starts), _RANGE)
    ranges["start"], ranges["count"] = starts, counts
    return ranges


def _after(item: PageRun | ZeroRun, count: int) -> Item | None:
    """What is left of a run after its first pages."""
    if count == len(item.numbers):
        return None
    if not count:
        return item
    if isinstance(item, PageRun):
        return PageRun(item.block, item.numbers[count:], item.contents[count:])
    return ZeroRun(item.block, item.numbers[count:])
