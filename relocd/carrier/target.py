"""The target's side: frames from the lanes, in order, to the hypervisor; its return path back on lane 0.

Equal threads receive in turns, a lane's next frame each; one checks, unpacks and hashes its frame while
another receives, and writes what is in order by then. One more thread reads the return path.
"""

from __future__ import annotations

import itertools
import socket
import threading
from collections.abc import Sequence
from typing import Final

from relocd.carrier.channels import Channel, combined
from relocd.carrier.confinement import confine
from relocd.carrier.control import CarrierEnded, CarrierFile, CarrierFilesDone, Memory, Receive, Totals
from relocd.carrier.files import FileSink
from relocd.carrier.inbox import Arrival, Inbox
from relocd.carrier.lanes import HypervisorStream, Lane
from relocd.carrier.memory import MemoryFile
from relocd.carrier.report import Moved, Reporter
from relocd.carrier.side import Side
from relocd.carrier.tls import Armour
from relocd.errors import DriverError, PeerUnreachable, ProtocolError, StreamError
from relocd.pages import frames
from relocd.pages.batch import BUFFER_BYTES, decode_batch
from relocd.pages.codecs import CODECS
from relocd.pages.digest import StreamDigest, batch_digest
from relocd.pages.frames import HEADER_BYTES, Codec, End, FileEnd, Header, Kind
from relocd.pages.items import pages, zero_pages
from relocd.pages.limits import RETURN_BYTES_MAX
from relocd.pages.placement import Placement
from relocd.pages.squeeze import decompress
from relocd.pages.stream_format import StreamFormat

THREADS_MIN: Final = 2
"""So that with a single lane one receives while the other unpacks and writes."""
_INCOMING: Final = frozenset({Kind.BATCH, Kind.FILE, Kind.FILE_END, Kind.END})


class Target(Side):
    """Receives one domain."""

    def __init__(
        self,
        reporter: Reporter,
        command: Receive,
        lanes: Sequence[socket.socket],
        files: Sequence[int],
        armour: Armour | None = None,
    ) -> None:
        super().__init__(reporter, lanes, command.channels, armour)
        self._stream_bytes_max = command.stream_bytes_max
        self._sink = FileSink(command.files, files)
        self._inbox = Inbox()
        self._free_memory: list[memoryview] = []
        self._encoder = CODECS[command.stream_format].encoder()
        self._placeable = command.stream_format is StreamFormat.QEMU
        self._placement: Placement | None = None
        self._lock = threading.Lock()
        self._digest = StreamDigest()
        self._stream_bytes = 0
        self._admitted_bytes = 0

    def start(self) -> None:
        if self._sink.complete:
            self.reporter.emit(CarrierFilesDone())
        for number in range(max(THREADS_MIN, len(self.lanes))):
            self.thread(f"move-{number}", self._move, self.lanes[number % len(self.lanes)])
        for number, channel in enumerate(self.channels):
            self.thread(f"channel-{number}", self._move_channel, number, channel)
        self.thread("return", self._return)

    def place_into(self, command: Memory, descriptor: int) -> None:
        """Here is the guest's memory; ``stream`` may not have been called yet. Raises ProtocolError, DriverError."""
        if not self._placeable:
            raise ProtocolError("only pages of QEMU's stream can be placed in a guest's memory")
        if self.channels:
            raise ProtocolError("no pages are placed beside a hypervisor that loads them from its channels")
        if self._placement is not None or self.streaming:
            raise ProtocolError("a guest's memory comes once, and before its stream")
        confine(descriptor, command.begin, command.size_bytes)
        memory = MemoryFile(descriptor, command.begin, command.size_bytes)
        self._placement = Placement(command.block, command.size_bytes, memory)

    def totals(self) -> Totals:
        with self._lock:
            stream_bytes, main = self._stream_bytes, self._digest.copy()
        channel_bytes, digest = combined(main, self.channels)
        return Totals(stream_bytes + channel_bytes, digest.batches, digest.hexdigest())

    # -- the moving threads

    def _move(self, lane: Lane) -> None:
        while (frame := self._receive(lane)) is not None:
            self._inbox.put(self._unpack(*frame))
            while (arrival := self._inbox.claim()) is not None:
                self._write(arrival)
                self._inbox.release()

    def _receive(self, lane: Lane) -> tuple[Header, memoryview, memoryview] | None:
        """The next frame of a lane, its payload and the memory of that; None if the lane was closed."""
        with lane.turn:
            header = self.next_header(lane)
            if header is None:
                return None
            self.check_kind(lane, header, _INCOMING)
            self._inbox.admit(header.sequence)
            memory = self._memory(header.wire_bytes)
            return header, lane.receive_payload(header, memory), memory

    def _unpack(self, header: Header, payload: memoryview, memory: memoryview) -> Arrival:
        frames.verify(header, payload)
        if header.kind is not Kind.BATCH:
            return Arrival(header, payload, memory=memory)
        if header.codec is Codec.RAW:
            return Arrival(header, payload, tuple(decode_batch(payload)), batch_digest(payload), memory)
        content = decompress(payload, header.decoded_bytes)
        self._recycle(memory)
        return Arrival(header, content, tuple(decode_batch(content)), batch_digest(content))

    def _memory(self, size: int) -> memoryview:
        """Memory for a payload. How much is in use is bounded by the window and the backlog."""
        if size > BUFFER_BYTES:
            return memoryview(bytearray(size))
        try:
            return self._free_memory.pop()
        except IndexError:
            return memoryview(bytearray(BUFFER_BYTES))

    def _recycle(self, memory: memoryview | None) -> None:
        if memory is not None and len(memory) == BUFFER_BYTES:
            self._free_memory.append(memory)

    # -- writing, by one of them at a time

    def _write(self, arrival: Arrival) -> None:
        if self.ended:
            raise StreamError("the peer sends more after the end of the stream")
        header = arrival.header
        self.reporter.count(Moved(wire_bytes=HEADER_BYTES + header.wire_bytes))
        match header.kind:
            case Kind.FILE:
                self._sink.write(arrival.payload)
            case Kind.FILE_END:
                self._end_file(FileEnd.from_bytes(arrival.payload))
            case Kind.BATCH:
                self._write_batch(arrival)
            case _:
                self._end(End.from_bytes(arrival.payload))
        self._recycle(arrival.memory)

    def _end_file(self, end: FileEnd) -> None:
        self.reporter.emit(CarrierFile(self._sink.end(end)))
        if self._sink.complete:
            self.reporter.emit(CarrierFilesDone())

    def _write_batch(self, arrival: Arrival) -> None:
        if not self._sink.complete:
            raise StreamError("the peer starts its stream before all boot files are complete")
        stream = self.stream()
        size = sum(map(self._encoder.encoded_bytes, arrival.items))
        with self._lock:
            # Counted before it is written: the hypervisor may say that it is content, and the daemon may ask for the
            # digest, before this thread gets to do anything after its last write.
            self._stream_bytes += size
            self._digest.add(arrival.header.sequence, arrival.digest)
        self._admit(size)
        items = arrival.items if self._placement is None else self._placement.sift(arrival.items)
        if items:
            stream.send(self._encoder.encode(items))
        self.reporter.count(
            Moved(
                stream_bytes=size,
                pages=sum(map(pages, arrival.items)),
                zero_pages=sum(map(zero_pages, arrival.items)),
                saved_bytes=arrival.header.decoded_bytes - arrival.header.wire_bytes,
            )
        )

    def _admit(self, size_bytes: int) -> None:
        """So much more has come, of the main stream or of a channel. Raises StreamError if that is too much."""
        with self._lock:
            self._admitted_bytes += size_bytes
            most = self._stream_bytes_max
            if 0 < most < self._admitted_bytes:
                raise StreamError(
                    f"the stream is longer than {most} bytes, the most that the domain announced can take"
                )

    def _end(self, end: End) -> None:
        self.wait_channels_ended()
        totals = self.totals()
        announced = Totals(end.stream_bytes, end.batches, end.digest.hex())
        if totals != announced:
            raise StreamError(f"what arrived is not what was sent: {totals.told}, not {announced.told}")
        self.ended = True
        self.stream().end()
        self.reporter.emit(CarrierEnded(totals, self.reporter.counters()))

    # -- the channels

    def _move_channel(self, number: int, channel: Channel) -> None:
        channel.receive(self._channel_frame, lambda: self.channel_stream(number), self.reporter, self._admit)

    def _channel_frame(self, lane: Lane) -> Header:
        """The next frame of a channel's lane."""
        header = self.next_header(lane)
        if header is None:
            raise lane.closed_by_peer()
        self.check_kind(lane, header, frozenset({Kind.CHANNEL}))
        return header

    # -- the return path

    def _return(self) -> None:
        """Pass the hypervisor's answers on until it closes; an empty frame tells the other side of that."""
        try:
            self._relay(self.stream(), self.lanes[0])
        except (DriverError, PeerUnreachable):
            if not self.ended:
                raise

    def _relay(self, stream: HypervisorStream, lane: Lane) -> None:
        memory = memoryview(bytearray(RETURN_BYTES_MAX))
        for sequence in itertools.count():
            stream.wait()
            piece = memory[: stream.receive(memory)]
            lane.send(frames.pack(Kind.RETURN, sequence, piece), piece)
            if not len(piece):
                return
