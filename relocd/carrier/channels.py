"""Channels of the hypervisor, each on a lane of its own: what comes out of one goes into its namesake, in order.

A hypervisor that compresses its memory in threads of its own, and spreads it over connections that it keeps in step
by itself (QEMU's multifd), needs nobody who looks at pages. No order between its channels may be enforced from
outside: one may have to wait until another has been read. So each has a lane, a thread and a sequence to itself.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Sequence
from typing import Final

from relocd.carrier.lanes import HypervisorStream, Lane
from relocd.carrier.report import Moved, Reporter
from relocd.errors import StreamError
from relocd.pages import frames
from relocd.pages.digest import StreamDigest, batch_digest
from relocd.pages.frames import HEADER_BYTES, Header, Kind
from relocd.pages.items import PAGE_SIZE
from relocd.pages.limits import CHANNEL_BYTES_MAX
from relocd.pages.multifd import Meter, Seen

PATIENCE_MS: Final = 1
"""How long a piece waits for more of a packet that has begun."""
HYPERVISORS_LEVEL: Final = 1
"""QEMU's default for zstd (``multifd-zstd-level``)."""


class Channel:
    """One, with its lane: what went through it so far, and whether it has ended. For several threads."""

    def __init__(self, lane: Lane) -> None:
        self.lane = lane
        self.ended = threading.Event()
        self._lock = threading.Lock()
        self._digest = StreamDigest()
        self._stream_bytes = 0

    def passes(self, piece: memoryview) -> None:
        """The next piece goes by."""
        digest = batch_digest(piece)
        with self._lock:
            self._digest.add(self._digest.batches, digest)
            self._stream_bytes += len(piece)

    def passed(self) -> tuple[int, StreamDigest]:
        """How many bytes, and the digest of the pieces in which they came."""
        with self._lock:
            return self._stream_bytes, self._digest.copy()

    def send(self, stream: HypervisorStream, reporter: Reporter, wait_for: Callable[[int], None]) -> None:
        """Move all that the hypervisor says to the lane. ``wait_for`` returns when so many bytes may go."""
        memory, meter = memoryview(bytearray(CHANNEL_BYTES_MAX)), Meter()
        for sequence in itertools.count():
            size_bytes, seen = _gather(stream, memory, meter)
            piece = memory[:size_bytes]
            if size_bytes:
                self.passes(piece)
            header = frames.pack(Kind.CHANNEL, sequence, piece)
            wait_for(len(header) + size_bytes)
            self.lane.send(header, piece)
            reporter.count(_moved(size_bytes, seen))
            if not size_bytes:
                break
        self.ended.set()

    def receive(
        self,
        next_frame: Callable[[Lane], Header],
        stream: Callable[[], HypervisorStream],
        reporter: Reporter,
        admit: Callable[[int], None],
    ) -> None:
        """Move all that the lane brings to the hypervisor. ``admit`` raises if a piece of so many bytes is too much.

        Raises StreamError for a piece that is damaged or out of order.
        """
        memory = memoryview(bytearray(CHANNEL_BYTES_MAX))
        for sequence in itertools.count():
            header = next_frame(self.lane)
            if header.sequence != sequence:
                raise StreamError(
                    f"a piece of the hypervisor's channel on lane {self.lane.number} is missing"
                )
            piece = self.lane.receive_payload(header, memory)
            frames.verify(header, piece)
            reporter.count(Moved(wire_bytes=HEADER_BYTES + len(piece), stream_bytes=len(piece)))
            if not len(piece):
                break
            admit(len(piece))
            # Before it is written: once the hypervisor has it the daemon may ask for the digest.
            self.passes(piece)
            stream().send(piece)
        stream().end()
        self.ended.set()


def combined(main: StreamDigest, channels: Sequence[Channel]) -> tuple[int, StreamDigest]:
    """Bytes of all channels, and a digest of everything: that of the main stream if there are none."""
    whole, bytes_in_all = main.copy(), 0
    for channel in channels:
        size_bytes, digest = channel.passed()
        whole.join(digest)
        bytes_in_all += size_bytes
    return bytes_in_all, whole


def _moved(size_bytes: int, seen: Seen) -> Moved:
    return Moved(
        wire_bytes=HEADER_BYTES + size_bytes,
        stream_bytes=size_bytes,
        pages=seen.pages,
        saved_bytes=seen.saved_bytes,
        content_bytes=seen.pages * PAGE_SIZE,
        level=HYPERVISORS_LEVEL,
    )


def _gather(stream: HypervisorStream, memory: memoryview, meter: Meter) -> tuple[int, Seen]:
    """Wait for bytes, then take what is there, up to the end of a packet if that comes soon; 0 at the end."""
    size = stream.receive(memory)
    seen = meter.feed(memory[:size])
    while size and meter.inside and size < len(memory):
        more = stream.receive_ready(memory[size:])
        if more is None and stream.wait(PATIENCE_MS):
            more = stream.receive_ready(memory[size:])
        if not more:
            break
        seen += meter.feed(memory[size : size + more])
        size += more
    return size, seen
