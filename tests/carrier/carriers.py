"""Real carrier processes, real sockets: what the tests of this package are made of."""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from relocd.carrier import control
from relocd.carrier.control import DATAGRAM_BYTES_MAX, Command, Event, FileSpec, dump_command, parse_event

PATIENCE_S = 20.0
"""How long a test waits for what must come; only a test that fails waits that long."""

E = TypeVar("E")


class Carrier:
    """One carrier process, as its daemon sees it. Leaving the context ends it."""

    def __init__(self) -> None:
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.control.settimeout(PATIENCE_S)
        arguments = [sys.executable, "-m", "relocd.carrier", "--control", str(theirs.fileno())]
        self.process = subprocess.Popen(arguments, pass_fds=[theirs.fileno()])
        theirs.close()
        self.events: list[Event] = []
        self.expect(control.CarrierReady)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
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
        """The next event that is no progress, which must be of this kind."""
        while isinstance(event := self.event(), control.CarrierProgress):
            if kind is control.CarrierProgress:
                break
        assert isinstance(event, kind), event
        return event

    def digest(self) -> control.Totals:
        self.tell(control.AskDigest())
        return self.expect(control.CarrierDigest).totals

    def exit_code(self) -> int:
        return self.process.wait(PATIENCE_S)


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
        self.out, self._source_stream = stream_pair()
        self.back, self._target_stream = stream_pair()

    def connect(
        self,
        lanes: int = 1,
        *,
        compression: str = "auto",
        files: Sequence[bytes] = (),
        sinks: Sequence[Path] = (),
        stream_bytes_max: int = 0,
        between: Callable[[int], tuple[socket.socket, socket.socket]] = lambda _: tcp_pair(),
    ) -> None:
        """Tell both to begin. ``between`` makes the two ends of a lane."""
        pairs = [between(number) for number in range(lanes)]
        specs = tuple(FileSpec(len(data), hashlib.sha256(data).hexdigest()) for data in files)
        send = control.Send(lanes, control.Compression(compression), specs)
        self.source.tell(send, *[near for near, _ in pairs], *map(memory_file, files))
        writable = [os.open(path, os.O_WRONLY | os.O_CREAT, 0o600) for path in sinks]
        self.target.tell(
            control.Receive(lanes, specs, stream_bytes_max), *[far for _, far in pairs], *writable
        )

    def start(self) -> None:
        """Hand both their hypervisor's stream."""
        self.source.tell(control.Stream(), self._source_stream)
        self.target.tell(control.Stream(), self._target_stream)

    def close(self) -> None:
        for sock in (self.out, self.back, self._source_stream, self._target_stream):
            sock.close()


def memory_file(data: bytes) -> int:
    """A readable descriptor with this content."""
    descriptor = os.memfd_create("test")
    os.write(descriptor, data)
    return descriptor


@contextmanager
def pair() -> Iterator[Pair]:
    """Two carriers, not connected yet."""
    with Carrier() as source, Carrier() as target:
        both = Pair(source, target)
        try:
            yield both
        finally:
            both.close()


def write_and_close(sock: socket.socket, pieces: Sequence[bytes | memoryview]) -> threading.Thread:
    """A hypervisor that sends these pieces, then ends its stream (it still listens)."""

    def write() -> None:
        for piece in pieces:
            sock.sendall(piece)
        sock.shutdown(socket.SHUT_WR)

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    return thread


def read_to_end(sock: socket.socket) -> bytes:
    """All that a hypervisor gets."""
    out = bytearray()
    while piece := sock.recv(1 << 20):
        out += piece
    return bytes(out)
