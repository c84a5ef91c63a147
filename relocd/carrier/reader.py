"""From the hypervisor's socket into batches."""

from __future__ import annotations

import time
from collections import deque
from typing import Final

from relocd.carrier.lanes import HypervisorStream
from relocd.pages.batch import TARGET_BYTES, BatchBuilder
from relocd.pages.codecs import StreamCodec
from relocd.pages.items import PAGE_SIZE, Item, Span

PATIENCE_MS: Final = 1
"""How long a batch that is not full waits for more. A hypervisor writes pieces of some 32 KiB, with pauses of a
fraction of this between them; small batches would cost much more than large ones. At the end of a stream nobody
waits longer than this for the last bytes."""


class StreamReader:
    """Reads and decodes one stream. One thread at a time may use it.

    ``stream_bytes`` were read so far; ``idle_s`` seconds were spent waiting for the hypervisor.
    """

    def __init__(self, codec: StreamCodec) -> None:
        self.stream_bytes = 0
        self.idle_s = 0.0
        self._decoder = codec.decoder()
        self._page_stride_bytes = codec.page_stride_bytes
        self._memory = memoryview(bytearray(self._records_bytes(TARGET_BYTES)))
        self._items: deque[Item] = deque()  # decoded, not yet in a batch; they refer to the memory
        self._rest = self._memory[:0]  # an incomplete record, somewhere in the memory
        self._ended = False

    def fill(self, builder: BatchBuilder, stream: HypervisorStream) -> bool:
        """Wait for bytes, then gather what is there until the batch is full or the hypervisor has no more just now.

        False at the end of the stream, with nothing gathered.
        """
        more = True
        while self._gather(builder) and not self._ended and not builder.worth_sending:
            if not more and not builder.empty:
                break
            left = len(self._rest)
            self._memory[:left] = self._rest
            room = self._memory[left:][: self._records_bytes(builder.target_bytes)]
            size, more = self._receive(stream, room, wait=builder.empty)
            self._decode(self._memory[: left + size])
        return not builder.empty

    def _gather(self, builder: BatchBuilder) -> bool:
        """Whether all items went into the batch, so that the memory is free again."""
        while self._items:
            rest = builder.add(self._items.popleft())
            if rest is not None:
                self._items.appendleft(rest)
                return False
        return True

    def _receive(self, stream: HypervisorStream, room: memoryview, *, wait: bool) -> tuple[int, bool]:
        """Fill ``room`` as far as the hypervisor goes on; how many bytes that are, and whether there may be more.

        All that there is is taken before it is looked at: pages cost little if they come as few runs.
        """
        size = 0
        while size < len(room):
            piece = stream.receive_ready(room[size:])
            if piece is None:
                piece = self._await(stream, room[size:], None if wait and not size else PATIENCE_MS)
            if piece is None:
                return size, False
            self._ended = not piece
            size += piece
            self.stream_bytes += piece
            if self._ended:
                break
        return size, True

    def _await(self, stream: HypervisorStream, room: memoryview, patience_ms: int | None) -> int | None:
        began_s = time.monotonic()
        ready = stream.wait(patience_ms)
        self.idle_s += time.monotonic() - began_s
        return stream.receive(room) if ready else None

    def _decode(self, data: memoryview) -> None:
        items, used = self._decoder.decode(data)
        self._items.extend(items)
        self._rest = data[used:]
        if self._ended and len(self._rest):
            self._items.append(Span(self._rest))
            self._rest = data[:0]

    def _records_bytes(self, target_bytes: int) -> int:
        """Read from the hypervisor at most this much at a time: as many page records as a batch holds."""
        return target_bytes // PAGE_SIZE * self._page_stride_bytes
