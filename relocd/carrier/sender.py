"""From a finished frame's content to the lane: hash, compress, send on whatever lane is free."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Sequence

from attrs import define

from relocd.carrier.lanes import Lane
from relocd.carrier.reader import StreamReader
from relocd.carrier.report import Moved
from relocd.carrier.throttle import Throttle
from relocd.pages import frames
from relocd.pages.batch import BatchBuilder
from relocd.pages.choice import Choice, Compression
from relocd.pages.digest import StreamDigest, batch_digest
from relocd.pages.frames import HEADER_BYTES, Kind
from relocd.pages.items import Buffer
from relocd.pages.pace import Pace
from relocd.pages.squeeze import Compressor
from relocd.pages.window import Window


@define(eq=False)
class Job:
    """One frame to be. A BATCH comes in its builder, the others as a payload.

    ``stream_bytes`` is how much was read from the hypervisor for it.
    """

    sequence: int
    kind: Kind
    payload: Buffer = b""
    builder: BatchBuilder | None = None
    stream_bytes: int = 0


class Sender:
    """Shared by all threads that send."""

    def __init__(self, lanes: Sequence[Lane], compression: Compression, reader: StreamReader) -> None:
        self.throttle = Throttle()
        self._reader = reader
        self._choice = Choice(compression)
        self._digest = StreamDigest()
        self._pace = Pace(len(lanes))
        self._order: Window[bytes | None] = Window()
        self._lock = threading.Lock()
        self._free_lanes: queue.SimpleQueue[Lane] = queue.SimpleQueue()
        for lane in lanes:
            self._free_lanes.put(lane)

    @property
    def batch_bytes(self) -> int:
        """How large the next batch may be."""
        return self._pace.batch_bytes

    def digest(self) -> StreamDigest:
        """The digest of all batches that were taken for sending, up to the first that is still missing."""
        with self._lock:
            return self._digest.copy()

    def send(self, job: Job, compressor: Compressor) -> Moved:
        """Send one frame; return when it is wholly handed to a lane. Raises PeerUnreachable."""
        if job.builder is not None:
            return self._send_batch(job, job.builder, compressor)
        with self._lock:
            self._note(job.sequence, None)
        self._put(frames.pack(job.kind, job.sequence, job.payload), job.payload, len(job.payload))
        return Moved(wire_bytes=HEADER_BYTES + len(job.payload))

    def _send_batch(self, job: Job, builder: BatchBuilder, compressor: Compressor) -> Moved:
        payload = builder.seal()
        digest = batch_digest(payload)
        with self._lock:
            self._note(job.sequence, digest)
            level = self._choice.level(len(payload))
            tries = level != 0 and not self._choice.skips()
        squeezed = self._squeeze(payload, level, compressor) if tries else None
        wire: Buffer = payload if squeezed is None else squeezed
        decoded_bytes = None if squeezed is None else len(payload)
        header = frames.pack(Kind.BATCH, job.sequence, wire, decoded_bytes=decoded_bytes)
        self._put(header, wire, len(payload))
        with self._lock:
            self._choice.moved(len(payload), time.monotonic(), self._reader.idle_s)
        return Moved(
            wire_bytes=HEADER_BYTES + len(wire),
            stream_bytes=job.stream_bytes,
            pages=builder.pages,
            zero_pages=builder.zero_pages,
            saved_bytes=len(payload) - len(wire),
            content_bytes=len(payload),
            level=0 if squeezed is None else level,
            dense=level != 0 and squeezed is None,
        )

    def _squeeze(self, payload: memoryview, level: int, compressor: Compressor) -> bytes | None:
        """The batch compressed, or None if it does not shrink enough."""
        squeezed = compressor.compress(payload, level)
        with self._lock:
            return squeezed if self._choice.shrunk(len(payload), len(squeezed)) else None

    def _put(self, header: bytes, payload: Buffer, content_bytes: int) -> None:
        with self._lock:
            self._pace.begin(time.monotonic())
        self.throttle.wait(len(header) + len(payload))
        lane = self._free_lanes.get()
        lane.hold_back(slow=self._pace.slow)
        lane.send(header, payload)
        self._free_lanes.put(lane)
        with self._lock:
            self._pace.end(content_bytes, time.monotonic())

    def _note(self, sequence: int, digest: bytes | None) -> None:
        """Chain the digests in order. Frames other than batches have none, but a place in the sequence."""
        first = self._order.next
        for place, ready in enumerate(self._order.put(sequence, digest), first):
            if ready is not None:
                self._digest.add(place, ready)
