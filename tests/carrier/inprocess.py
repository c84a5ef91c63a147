"""One side of a relocation inside of the test's own process: quick enough to be run hundreds of times."""

from __future__ import annotations

import queue
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from attrs import frozen

from relocd.carrier.control import Event, Receive, Send
from relocd.carrier.report import Reporter
from relocd.carrier.side import Side
from relocd.carrier.source import Source
from relocd.carrier.target import Target
from relocd.pages import frames
from relocd.pages.choice import Compression
from relocd.pages.frames import HEADER_BYTES, Header, Kind
from tests.carrier.carriers import PATIENCE_S, stream_pair


class Ear(Reporter):
    """Keeps what a side says to its daemon, and the errors that would end its process, in order."""

    def __init__(self, control: socket.socket) -> None:
        super().__init__(control)
        self._heard: queue.SimpleQueue[Event | BaseException] = queue.SimpleQueue()

    def emit(self, event: Event) -> None:
        self._heard.put(event)

    def hear_error(self, args: threading.ExceptHookArgs) -> None:
        """To be threading.excepthook."""
        assert args.exc_value is not None
        self._heard.put(args.exc_value)

    def verdict(self, kind: type[Event]) -> Event | BaseException:
        """The next error, or event of this kind."""
        while True:
            heard = self._heard.get(timeout=PATIENCE_S)
            if isinstance(heard, BaseException) or type(heard) is kind:
                return heard


@frozen
class Stage:
    """A side with one lane: ``lane`` is the peer's end of it, ``stream`` the hypervisor's.

    ``channels`` are the peer's ends of the lanes of channels, ``channel_streams`` the hypervisor's.
    """

    ear: Ear
    lane: socket.socket
    stream: socket.socket
    channels: tuple[socket.socket, ...] = ()
    channel_streams: tuple[socket.socket, ...] = ()

    def read_frame(self) -> tuple[Header, bytes]:
        """The next frame that comes out of the lane: its header, and the whole of it."""
        head = self.lane.recv(HEADER_BYTES, socket.MSG_WAITALL)
        header = frames.unpack(head)
        payload = self.lane.recv(header.wire_bytes, socket.MSG_WAITALL) if header.wire_bytes else b""
        return header, head + payload

    def end_stream(self) -> tuple[Header, bytes]:
        """Of a source: the hypervisor has said everything. The END frame comes out of the lane."""
        self.stream.shutdown(socket.SHUT_WR)
        while (frame := self.read_frame())[0].kind is not Kind.END:
            pass
        return frame


@contextmanager
def source() -> Iterator[Stage]:
    """A source that compresses with zstd."""
    with _stage(lambda ear, lanes: Source(ear, Send(1, Compression.ZSTD), lanes, [])) as stage:
        yield stage


@contextmanager
def target(channels: int = 0) -> Iterator[Stage]:
    """A target that rebuilds the stream."""
    command = Receive(1 + channels, channels=channels)
    with _stage(lambda ear, lanes: Target(ear, command, lanes, []), channels) as stage:
        yield stage


@contextmanager
def _stage(make: Callable[[Ear, list[socket.socket]], Side], channels: int = 0) -> Iterator[Stage]:
    """Run a side until the test has seen enough, and see all of its threads end."""
    lanes, their_lanes = _ends(1 + channels)
    hypervisors, streams = _ends(1 + channels)
    daemon, control = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ear = Ear(control)
    before, hook = set(threading.enumerate()), threading.excepthook
    threading.excepthook = ear.hear_error
    try:
        side = make(ear, their_lanes)
        side.start()
        side.give_stream(streams[0], streams[1:])
        yield Stage(ear, lanes[0], hypervisors[0], tuple(lanes[1:]), tuple(hypervisors[1:]))
        for sock in (*hypervisors, *lanes):
            sock.close()
        for thread in set(threading.enumerate()) - before:
            thread.join(PATIENCE_S)
            assert not thread.is_alive(), thread
    finally:
        threading.excepthook = hook
        for sock in (*lanes, *their_lanes, *hypervisors, *streams, daemon, control):
            sock.close()


def _ends(count: int) -> tuple[list[socket.socket], list[socket.socket]]:
    """The test's ends of so many connections, and the side's."""
    pairs = [stream_pair() for _ in range(count)]
    return [ours for ours, _ in pairs], [theirs for _, theirs in pairs]
