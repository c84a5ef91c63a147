"""Real carrier processes, real sockets: what the tests of this package are made of."""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Self, TypeVar

from attrs import evolve

from relocd.carrier import control
from relocd.carrier.control import (
    DATAGRAM_BYTES_MAX,
    Command,
    Event,
    FileSpec,
    LaneSecurity,
    dump_command,
    parse_event,
)
from relocd.pages import frames
from relocd.pages.choice import LEVELS, Compression
from relocd.pages.frames import Header
from relocd.pages.stream_format import StreamFormat

PATIENCE_S = 20.0
"""How long a test waits for what must come; only a test that fails waits that long."""

E = TypeVar("E")


class Carrier:
    """One carrier process, as its daemon sees it. Leaving the context ends it."""

    def __init__(self, module: str = "relocd.carrier") -> None:
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.control.settimeout(PATIENCE_S)
        arguments = [sys.executable, "-m", module, "--control", str(theirs.fileno())]
        self.process = subprocess.Popen(arguments, pass_fds=[theirs.fileno()])
        theirs.close()
        self.events: list[Event] = []

    def __enter__(self) -> Self:
        self.expect(control.CarrierReady)
        return self

    def __exit__(self, *_: object) -> None:
        self.control.close()
        self.process.wait(PATIENCE_S)

    def tell(self, command: Command, *descriptors: socket.socket | int) -> None:
        """Send a command; sockets that go with it are closed here, as a daemon would."""
        numbers = [d if isinstance(d, int) else d.fileno() for d in descriptors]
        socket.send_fds(self.control, [dump_command(command)], numbers)
        for descriptor in descriptors:
            if isinstance(descriptor, int):
                os.close(descriptor)
            else:
                descriptor.close()

    def event(self) -> Event | None:
        """The next event, None when the process is gone."""
        datagram = self.control.recv(DATAGRAM_BYTES_MAX)
        if not datagram:
            return None
        self.events.append(parse_event(datagram))
        return self.events[-1]

    def expect(self, kind: type[E]) -> E:
        """The next event that is no progress (unless wanted), which must be of this kind."""
        while isinstance(event := self.event(), control.CarrierProgress):
            if kind is control.CarrierProgress:
                break
        assert isinstance(event, kind), event
        return event

    def digest(self) -> control.Totals:
        """Ask for the digest. Events that come before the answer are kept for ``last``."""
        self.tell(control.AskDigest())
        while not isinstance(event := self.event(), control.CarrierDigest):
            assert event is not None
        return event.totals

    def last(self, kind: type[E]) -> E:
        """The last event of this kind, be it past or to come."""
        while not (found := [event for event in self.events if isinstance(event, kind)]):
            assert self.event() is not None
        return found[-1]

    def exit_code(self) -> int:
        return self.process.wait(PATIENCE_S)


def known_to_both(counters: control.CarrierProgress) -> control.CarrierProgress:
    """Levels of compression are the source's business."""
    return evolve(counters, dense_bytes=0, level_bytes=(0,) * len(LEVELS))


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    """Two ends of a loopback connection: a lane."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        near = socket.create_connection(server.getsockname())
        far, _ = server.accept()
    for end in (near, far):
        end.settimeout(PATIENCE_S)
    return near, far


def stream_pair() -> tuple[socket.socket, socket.socket]:
    """A hypervisor's end and a carrier's end of a stream."""
    ours, theirs = socket.socketpair()
    ours.settimeout(PATIENCE_S)
    return ours, theirs


class Pair:
    """A source and a target carrier joined by lanes, and the hypervisors' ends of both streams."""

    def __init__(self, source: Carrier, target: Carrier) -> None:
        self.source, self.target = source, target
        self.out, self._source_stream = stream_pair()  # the hypervisor that sends
        self.back, self._target_stream = stream_pair()  # the hypervisor that receives
        self.channels_out: list[socket.socket] = []  # its further connections, each
        self.channels_back: list[socket.socket] = []
        self._source_channels: list[socket.socket] = []
        self._target_channels: list[socket.socket] = []

    def connect(
        self,
        lanes: int = 1,
        *,
        compression: str = "auto",
        files: Sequence[bytes] = (),
        sinks: Sequence[Path] = (),
        stream_bytes_max: int = 0,
        between: Callable[[int], tuple[socket.socket, socket.socket]] = lambda _: tcp_pair(),
        security: tuple[LaneSecurity | None, LaneSecurity | None] = (None, None),
        stream_format: StreamFormat = StreamFormat.QEMU,
        channels: int = 0,
    ) -> None:
        """Tell both to begin. ``between`` makes the two ends of a lane; ``security`` is source's and target's.

        ``lanes`` are those of the main stream; those of ``channels`` are more, and have the numbers after them.
        """
        lanes += channels
        pairs = [between(number) for number in range(lanes)]
        for _ in range(channels):
            self._add_channel()
        specs = tuple(FileSpec(len(data), hashlib.sha256(data).hexdigest()) for data in files)
        send = control.Send(lanes, Compression(compression), specs, security[0], stream_format, channels)
        self.source.tell(send, *[near for near, _ in pairs], *map(memory_file, files))
        writable = [os.open(path, os.O_WRONLY | os.O_CREAT, 0o600) for path in sinks]
        self.target.tell(
            control.Receive(lanes, specs, stream_bytes_max, security[1], stream_format, channels),
            *[far for _, far in pairs],
            *writable,
        )

    def start(self) -> None:
        """Hand both their hypervisor's stream, and its channels."""
        command = control.Stream(len(self.channels_out))
        self.source.tell(command, self._source_stream, *self._source_channels)
        self.target.tell(command, self._target_stream, *self._target_channels)

    def expect_files(self) -> None:
        self.source.expect(control.CarrierFilesDone)
        self.target.expect(control.CarrierFilesDone)

    def expect_end(self) -> tuple[control.CarrierEnded, control.CarrierEnded]:
        """Both sides' account of a stream that ended well."""
        return self.source.expect(control.CarrierEnded), self.target.expect(control.CarrierEnded)

    def close(self) -> None:
        for sock in (self.out, self.back, self._source_stream, self._target_stream):
            sock.close()
        for channels in (self.channels_out, self.channels_back, self._source_channels, self._target_channels):
            for channel in channels:
                channel.close()

    def _add_channel(self) -> None:
        for hypervisors, carriers in (
            (self.channels_out, self._source_channels),
            (self.channels_back, self._target_channels),
        ):
            ours, theirs = stream_pair()
            hypervisors.append(ours)
            carriers.append(theirs)


class FrameRelay:
    """A lane with somebody on it who passes frames on, whole ones, and tells ``on_frame`` of each before that."""

    def __init__(self, on_frame: Callable[[int, Header], None]) -> None:
        self._on_frame = on_frame

    def __call__(self, number: int) -> tuple[socket.socket, socket.socket]:
        """The two ends of lane ``number``."""
        near, inner_near = tcp_pair()
        inner_far, far = tcp_pair()
        for end in (inner_near, inner_far):
            end.settimeout(None)
            end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32 << 10)  # so that frames do not wait unseen
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 32 << 10)
        threading.Thread(target=self._relay, args=(number, inner_near, inner_far), daemon=True).start()
        threading.Thread(target=Meddler.pump, args=(inner_far, inner_near, _as_it_is), daemon=True).start()
        return near, far

    def _relay(self, number: int, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError), source, sink:
            while head := source.recv(frames.HEADER_BYTES, socket.MSG_WAITALL):
                header = frames.unpack(head)
                payload = source.recv(header.wire_bytes, socket.MSG_WAITALL)
                self._on_frame(number, header)
                sink.sendall(head + payload)


def _as_it_is(_: int, data: bytes) -> bytes:
    return data


class Meddler:
    """A lane with somebody on it. Bytes towards the target may be changed by ``meddle(offset, data)``.

    It returns what goes on instead, or None to cut the lane.
    """

    def __init__(self, meddle: Callable[[int, bytes], bytes | None]) -> None:
        self._meddle = meddle

    def __call__(self, number: int) -> tuple[socket.socket, socket.socket]:
        """The two ends of lane ``number``."""
        near, inner_near = tcp_pair()
        inner_far, far = tcp_pair()
        for end in (inner_near, inner_far):
            end.settimeout(None)
        threading.Thread(target=self.pump, args=(inner_near, inner_far, self._meddle), daemon=True).start()
        threading.Thread(target=self.pump, args=(inner_far, inner_near, _as_it_is), daemon=True).start()
        return near, far

    @staticmethod
    def pump(
        source: socket.socket, sink: socket.socket, meddle: Callable[[int, bytes], bytes | None]
    ) -> None:
        offset = 0
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                changed = meddle(offset, data)
                if changed is None:
                    break
                sink.sendall(changed)
                offset += len(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


def memory_file(data: bytes) -> int:
    """A readable descriptor with this content."""
    descriptor = os.memfd_create("test")
    os.write(descriptor, data)
    return descriptor


@contextmanager
def pair() -> Iterator[Pair]:
    """Two carriers, not connected yet."""
    first, second = Carrier(), Carrier()  # both start at the same time
    with first as source, second as target:
        both = Pair(source, target)
        try:
            yield both
        finally:
            both.close()


def write_and_close(sock: socket.socket, pieces: Sequence[bytes | memoryview]) -> threading.Thread:
    """A hypervisor that sends these pieces, then ends its stream (it still listens)."""

    def write() -> None:
        with contextlib.suppress(OSError):  # the carrier may give up
            for piece in pieces:
                sock.sendall(piece)
            sock.shutdown(socket.SHUT_WR)

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    return thread


def read_all(socks: Sequence[socket.socket]) -> list[bytes]:
    """All that each of a hypervisor's connections gets, read at the same time."""
    with ThreadPoolExecutor(len(socks)) as readers:
        return list(readers.map(read_to_end, socks))


def read_in_background(sock: socket.socket) -> threading.Thread:
    """A hypervisor that takes what it gets."""

    def read() -> None:
        with contextlib.suppress(OSError):  # the test may be over first
            read_to_end(sock)

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    return thread


def read_to_end(sock: socket.socket) -> bytes:
    """All that a hypervisor gets."""
    out = bytearray()
    while piece := sock.recv(1 << 20):
        out += piece
    return bytes(out)
