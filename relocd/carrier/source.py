"""The source's side: boot files, then the hypervisor's stream, onto the lanes; the return path back.

A few equal threads take turns: one reads until it has a batch, lets the next one read, compresses its batch
and sends it on whatever lane is free. So a batch stays with one thread (and in one core's cache) all the way,
no queue can build up, and the last bytes of a stream leave without waking anybody. One more thread a lane
listens.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Iterator, Sequence

from relocd.carrier.channels import Channel, combined
from relocd.carrier.control import CarrierEnded, CarrierFilesDone, FileSpec, Send, Totals
from relocd.carrier.flight import Flight
from relocd.carrier.lanes import HypervisorStream, Lane
from relocd.carrier.reader import StreamReader
from relocd.carrier.report import Reporter
from relocd.carrier.sender import Job, Sender
from relocd.carrier.side import Side
from relocd.carrier.tls import Armour
from relocd.errors import DriverError, StreamError
from relocd.pages import frames
from relocd.pages.batch import BUFFER_BYTES, BatchBuilder
from relocd.pages.codecs import CODECS
from relocd.pages.frames import End, FileEnd, Header, Kind
from relocd.pages.limits import CHUNK_BYTES_MAX, RETURN_BYTES_MAX
from relocd.pages.squeeze import Compressor


class Source(Side):
    """Sends one domain. One thread more than lanes: it reads and compresses while the others wait for the
    link."""

    def __init__(
        self,
        reporter: Reporter,
        command: Send,
        lanes: Sequence[socket.socket],
        files: Sequence[int],
        armour: Armour | None = None,
    ) -> None:
        super().__init__(reporter, lanes, command.channels, armour)
        self._files = list(zip(command.files, files, strict=True))
        self._reader = StreamReader(CODECS[command.stream_format])
        self.sender = Sender(self.lanes, command.compression, self._reader)
        self._flight = Flight()
        self._turn = threading.Lock()
        self._memory = memoryview(b"")  # of the thread whose turn it is
        self._jobs = self._all_jobs()

    def start(self) -> None:
        for number in range(len(self.lanes) + 1):
            self.thread(f"move-{number}", self._move)
        for number, channel in enumerate(self.channels):
            self.thread(f"channel-{number}", self._move_channel, number, channel)
        for lane in self.all_lanes:
            self.thread(f"listen-{lane.number}", self._listen, lane)

    def totals(self) -> Totals:
        channel_bytes, digest = combined(self.sender.digest(), self.channels)
        return Totals(self._reader.stream_bytes + channel_bytes, digest.batches, digest.hexdigest())

    def streams_to_break(self) -> list[HypervisorStream]:
        """Not the channels: QEMU hangs if one breaks while it switches over (see relocd.drivers.qemu.held)."""
        return super().streams_to_break()[:1]

    # -- the moving threads

    def _move(self) -> None:
        memory, compressor = memoryview(bytearray(BUFFER_BYTES)), Compressor()
        while True:
            with self._turn:
                self._memory = memory
                job = next(self._jobs, None)
            if job is None:
                return
            self.reporter.count(self.sender.send(job, compressor))
            self._flight.arrive(job.sequence)

    def _all_jobs(self) -> Iterator[Job]:
        """The whole story, in order. Each job may live in ``_memory`` as it is when the job is asked for."""
        for index, (spec, descriptor) in enumerate(self._files):
            yield from self._file_jobs(index, spec, descriptor)
        self._flight.drain()
        self.reporter.emit(CarrierFilesDone())
        yield from self._stream_jobs()
        self._flight.drain()
        self.wait_channels_ended()
        totals = self.totals()
        self.ended = True
        yield self._job(
            Kind.END, End(totals.stream_bytes, totals.batches, bytes.fromhex(totals.digest)).to_bytes()
        )
        self._flight.drain()
        self.reporter.emit(CarrierEnded(totals, self.reporter.counters()))

    def _file_jobs(self, index: int, spec: FileSpec, descriptor: int) -> Iterator[Job]:
        for done in range(0, spec.size_bytes, CHUNK_BYTES_MAX):
            piece = self._memory[: min(CHUNK_BYTES_MAX, spec.size_bytes - done)]
            if os.preadv(descriptor, [piece], done) < len(piece):
                raise StreamError(f"boot file {index} is shorter than the {spec.size_bytes} bytes announced")
            yield self._job(Kind.FILE, piece)
        os.close(descriptor)
        yield self._job(Kind.FILE_END, FileEnd(index, spec.size_bytes).to_bytes())

    def _stream_jobs(self) -> Iterator[Job]:
        stream = self.stream()
        before = 0
        while self._reader.fill(builder := self._builder(), stream):
            read = self._reader.stream_bytes
            yield Job(self._flight.depart(), Kind.BATCH, builder=builder, stream_bytes=read - before)
            before = read

    def _builder(self) -> BatchBuilder:
        return BatchBuilder(self._memory, self.sender.batch_bytes)

    def _job(self, kind: Kind, payload: bytes | memoryview) -> Job:
        return Job(self._flight.depart(), kind, payload)

    def _move_channel(self, number: int, channel: Channel) -> None:
        channel.send(self.channel_stream(number), self.reporter, self.sender.throttle.wait)

    # -- the listening threads

    def _listen(self, lane: Lane) -> None:
        memory = memoryview(bytearray(RETURN_BYTES_MAX))
        allowed = frozenset({Kind.RETURN} if lane.number == 0 else ())
        expected = 0
        while (header := self._next_return(lane)) is not None:
            self.check_kind(lane, header, allowed)
            if header.sequence != expected:
                raise StreamError("a piece of the hypervisor's return path is missing")
            expected += 1
            payload = lane.receive_payload(header, memory)
            frames.verify(header, payload)
            self._give_back(payload)

    def _next_return(self, lane: Lane) -> Header | None:
        lane.wait()
        return self.next_header(lane)

    def _give_back(self, payload: memoryview) -> None:
        """Pass the return path on; an empty piece is its end."""
        stream = self.stream()
        if not len(payload):
            stream.end()
        else:
            with contextlib.suppress(
                DriverError
            ):  # a hypervisor that no longer listens has ended its stream, too
                stream.send(payload)
