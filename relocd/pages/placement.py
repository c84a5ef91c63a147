"""Direct placement: pages go straight into the guest's memory and are left out of the hypervisor's stream.

The memory is that of one block. All else stays in the stream that the hypervisor loads: how it is framed, the
table of blocks, the other blocks, device state. So the hypervisor sees the healthy stream of a guest whose
main memory was never touched.

Items come in the order of the source's stream and are placed in that order, so the newest content of a page
wins; and all that precedes an item is placed before that item is handed on, so no device state is loaded
before the memory that it refers to is there.

What is left out must not change the meaning of what is left in. Therefore the framing is followed here as well.
If it holds something that is not understood while nothing was placed yet, everything goes into the stream, and
the hypervisor makes of it what it can; later on, it is an error.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from typing import Final, Protocol

import numpy as np

from relocd.errors import StreamError
from relocd.pages.items import PAGE_SIZE, Item, Numbers, Octets, PageRun, Span, ZeroRun
from relocd.pages.qemu_decoder import QemuDecoder
from relocd.pages.ranges import stretches


class Memory(Protocol):
    """A guest's memory. Offsets and sizes in bytes, always inside."""

    def write(self, offset: int, contents: Octets) -> None:
        """Put these rows there."""

    def clear(self, offset: int, size: int) -> None:
        """Have it read as zeros, which it may do already."""


_PART_SHIFT: Final = np.uint64(4)
"""Memory is known to be untouched in parts of 16 pages: zero pages that come for such a part need not be written, and
take no memory. A byte for each part is 16 MiB for a guest of 1 TiB."""


class Stage(enum.Enum):
    """How far a placement is."""

    UNDECIDED = "undecided"  # no page of the block was seen yet
    PLACING = "placing"
    REBUILDING = "rebuilding"  # nothing was placed, and nothing will be


class Placement:
    """Sifts one stream on its way to the hypervisor. ``block`` is what the stream calls the memory."""

    def __init__(self, block: str, size_bytes: int, memory: Memory) -> None:
        self._block = block
        self._size_bytes = size_bytes
        self._memory = memory
        self._touched = np.zeros((size_bytes // PAGE_SIZE >> _PART_SHIFT) + 1, np.bool_)
        self._framing = QemuDecoder()
        self._rest = b""
        self.stage = Stage.UNDECIDED

    def sift(self, items: Iterable[Item]) -> list[Item]:
        """Place what belongs to the block; return what the hypervisor must be given, in order.

        Raises StreamError for pages outside the block, and for what is not understood after pages were placed.
        """
        return [item for item in items if not self._take(item)]

    def _take(self, item: Item) -> bool:
        if self.stage is Stage.REBUILDING:
            return False
        if isinstance(item, Span):
            self._follow(item)
            return False
        if not isinstance(item, PageRun | ZeroRun) or item.block != self._block:
            return False
        if self.stage is Stage.UNDECIDED:
            self._decide()
        return self.stage is Stage.PLACING and self._place(item)

    def _follow(self, span: Span) -> None:
        """Read on in the framing. Pages of a stream that is understood come as runs, not inside of spans."""
        data = self._rest + bytes(span.data) if self._rest else span.data
        items, used = self._framing.decode(data)
        self._rest = bytes(memoryview(data)[used:])
        if self._framing.lost or not all(isinstance(found, Span) for found in items):
            self._give_up("its framing is not that of a plain stream")

    def _decide(self) -> None:
        size_bytes = self._framing.blocks.get(self._block)
        if size_bytes != self._size_bytes or size_bytes % PAGE_SIZE:
            self._give_up(f"block {self._block!r} has {size_bytes} bytes instead of {self._size_bytes}")
        else:
            self.stage = Stage.PLACING

    def _give_up(self, reason: str) -> None:
        if self.stage is Stage.PLACING:
            raise StreamError(
                f"the stream cannot be followed while pages are placed: {reason}",
                hint="Set xen-relocation-direct-placement to no on the target, and try again.",
            )
        self.stage = Stage.REBUILDING

    def _place(self, run: PageRun | ZeroRun) -> bool:
        if self._rest or self._framing.memory_ended:
            self._give_up("it has pages in a place where none can be")
        if int(run.numbers.max()) >= self._size_bytes // PAGE_SIZE:
            raise StreamError(f"a page lies outside the {self._size_bytes} bytes of block {self._block!r}")
        if isinstance(run, PageRun):
            self._write(run.numbers, run.contents)
        else:
            self._clear(run.numbers)
        return True

    def _write(self, numbers: Numbers, contents: Octets) -> None:
        self._touched[numbers >> _PART_SHIFT] = True
        row = 0
        for first, count in zip(*(part.tolist() for part in stretches(numbers)), strict=True):
            self._memory.write(first * PAGE_SIZE, contents[row : row + count])
            row += count

    def _clear(self, numbers: Numbers) -> None:
        numbers = numbers[self._touched[numbers >> _PART_SHIFT]]
        if not len(numbers):
            return
        for first, count in zip(*(part.tolist() for part in stretches(numbers)), strict=True):
            self._memory.clear(first * PAGE_SIZE, count * PAGE_SIZE)
