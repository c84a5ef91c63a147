"""What source and target have in common: lanes, a hypervisor's stream that comes later, threads, a digest."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Sequence
from typing import ParamSpec

from relocd.carrier.channels import Channel
from relocd.carrier.control import Totals
from relocd.carrier.lanes import HypervisorStream, Lane
from relocd.carrier.report import Reporter
from relocd.carrier.tls import Armour
from relocd.errors import PeerUnreachable, ProtocolError, StreamError
from relocd.pages import frames
from relocd.pages.frames import Header, Kind, abort_reason

P = ParamSpec("P")


class Side:
    """One side of a relocation. An error in any of its threads ends the process (``main`` sees to it)."""

    def __init__(
        self,
        reporter: Reporter,
        sockets: Sequence[socket.socket],
        channels: int,
        armour: Armour | None = None,
    ) -> None:
        """The last ``channels`` lanes each have a channel of the hypervisor; the others share its main stream."""
        self.reporter = reporter
        if armour is not None:
            armour.trust_peer()
        lanes = [Lane(sock, number, armour) for number, sock in enumerate(sockets)]
        self.lanes, channel_lanes = lanes[: len(lanes) - channels], lanes[len(lanes) - channels :]
        self.channels = [Channel(lane) for lane in channel_lanes]
        self.ended = False  # all was sent or written; from here on the peer and the hypervisor may close
        self._stream: HypervisorStream | None = None
        self._channel_streams: list[HypervisorStream] = []
        self._stream_given = threading.Event()
        reporter.at_failure(self._give_up)

    def start(self) -> None:
        """Start the threads that need no hypervisor."""
        raise NotImplementedError

    def totals(self) -> Totals:
        """What was moved so far."""
        raise NotImplementedError

    def give_stream(self, sock: socket.socket, channels: Sequence[socket.socket] = ()) -> None:
        """Here is the hypervisor. Raises ProtocolError if there is one already, or has another number of channels."""
        if self._stream is not None:
            raise ProtocolError("a carrier has one hypervisor stream, not two")
        if len(channels) != len(self.channels):
            raise ProtocolError(f"{len(channels)} channels come with the stream, not {len(self.channels)}")
        self._channel_streams = [HypervisorStream(channel) for channel in channels]
        self._stream = HypervisorStream(sock)
        self._stream_given.set()

    @property
    def streaming(self) -> bool:
        """Whether the hypervisor's stream was given."""
        return self._stream_given.is_set()

    def stream(self) -> HypervisorStream:
        """The hypervisor's stream; waits for it."""
        self._stream_given.wait()
        assert self._stream is not None
        return self._stream

    def channel_stream(self, number: int) -> HypervisorStream:
        """The hypervisor's end of a channel; waits for it."""
        self._stream_given.wait()
        return self._channel_streams[number]

    def wait_channels_ended(self) -> None:
        """Return when nothing more comes through any channel."""
        for channel in self.channels:
            channel.ended.wait()

    def streams_to_break(self) -> list[HypervisorStream]:
        """What tells the hypervisor at once that it is over: all that was given."""
        return [] if self._stream is None else [self._stream, *self._channel_streams]

    @property
    def all_lanes(self) -> list[Lane]:
        """Those of the main stream and those of the channels, by number."""
        return [*self.lanes, *(channel.lane for channel in self.channels)]

    def thread(self, name: str, function: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> None:
        """Run ``function`` in a thread of its own that does not outlive the process."""
        threading.Thread(target=function, args=args, kwargs=kwargs, name=name, daemon=True).start()

    def check_kind(self, lane: Lane, header: Header, allowed: frozenset[Kind]) -> None:
        """Refuse a frame that has no business here; an ABORT is the peer's failure. Raises StreamError."""
        if header.kind is Kind.ABORT:
            payload = lane.receive_payload(header, memoryview(bytearray(header.wire_bytes)))
            frames.verify(header, payload)
            raise StreamError(f"the peer gave up: {abort_reason(payload)}")
        if header.kind not in allowed:
            raise StreamError(f"lane {lane.number} carries a {header.kind.name} frame in the wrong direction")

    def next_header(self, lane: Lane) -> Header | None:
        """Wait for a frame. None if the lane was closed, which is fine after the end and an error before.

        Raises PeerUnreachable.
        """
        try:
            header = lane.receive_header()
        except PeerUnreachable:
            if self.ended:
                return None
            raise
        if header is None and not self.ended:
            raise lane.closed_by_peer()
        return header

    def _give_up(self, reason: str) -> None:
        for lane in self.all_lanes:
            lane.abort(reason)
        for stream in self.streams_to_break():
            stream.close()
