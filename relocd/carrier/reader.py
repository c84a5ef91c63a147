"""From the hypervisor's socket into batches."""

from __future__ import annotations

import time
from collections import deque
from typing import Final

from relocd.carrier.lanes import HypervisorStream
from relocd.pages.batch import TARGET_BYTES, BatchBuilder
from relocd.pages.items import PAGE_SIZE, Item, Span
from relocd.pages.qemu_decoder import QemuDecoder
from relocd.pages.qemu_format import PAGE_STRIDE

RECEIVE_BYTES: Final = TARGET_BYTES // PAGE_SIZE * PAGE_STRIDE
"""Read from the hypervisor at most this much at a time: as many page records as a batch holds."""


class StreamReader:
    """Reads and decodes one stream. One thread at a time may use it.

    ``stream_bytes`` were read so far; ``idle_s`` seconds were spent waiting for the hypervisor.
    """

    def __init__(self) -> None:
        self.stream_bytes = 0
        self.idle_s = 0.0
        self._decoder = QemuDecoder()
        self._memory = memoryview(bytearray(RECEIVE_BYTES))
        self._items: deque[Item] = deque()  # decoded, not yet in a batch; they refer to the memory
        self._rest = self._memory[:0]  # an incomplete record, somewhere in the memory
        self._ended = False

    def fill(self, builder: BatchBuilder, stream: HypervisorStream) -> bool:
        """Wait for bytes, then gather what is there until the batch is full or the hypervisor has no more just now.

        False at the end of the stream, with nothing gathered.
        """
        while self._gather(builder) and not self._ended:
            left = len(self._rest)
            self._memory[:left] = self._rest
            self._rest = self._memory[:left]
            size = self._receive(stream, self._memory[left:], wait=builder.empty)
            if size is None:
                break
            self._decode(self._memory[: left + size], ended=size == 0)
        return not builder.empty

    def _gather(self, builder: BatchBuilder) -> bool:
        """Whether all items went into the batch, so that the memory is free again."""
        while self._items:
            rest = builder.add(self._items.popleft())
            if rest is not None:
                self._items.appendleft(rest)
                return False
        return True

    def _receive(self, stream: HypervisorStream, room: memoryview, *, wait: bool) -> int | None:
        size = stream.receive_ready(room)
        if size is None and wait:
            began_s = time.monotonic()
            size = stream.receive(room)
            self.idle_s += time.monotonic() - began_s
        self.stream_bytes += size or 0
        return size

    def _decode(self, data: memoryview, *, ended: bool) -> None:
        items, used = self._decoder.decode(data)
        self._items.extend(items)
        self._rest = data[used:]
        if ended and len(self._rest):
            self._items.append(Span(self._rest))
            self._rest = data[:0]
        self._ended = ended
