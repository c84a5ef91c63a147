"""Sockets: lanes to the peer's carrier, and the stream to the hypervisor. All blocking, with small
buffers."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Final

from relocd.carrier.links import Link, PlainLink, wait_readable
from relocd.carrier.tls import Armour
from relocd.errors import DriverError, PeerUnreachable, StreamError
from relocd.pages import frames
from relocd.pages.frames import HEADER_BYTES, Header, Kind
from relocd.pages.items import Buffer

SOCKET_BUFFER_BYTES: Final = 128 << 10
"""Both directions, lanes and stream. The hypervisor decides on its switchover by the speed at which its bytes
are taken, and every buffered byte has to arrive during the switchover: large buffers cost 100 ms of blackout
and more."""
UNSENT_BYTES: Final = 32 << 10
"""What may wait in the buffer of a lane on a slow link, besides what is on its way already."""

KEEPALIVE_IDLE_S: Final = 10
KEEPALIVE_INTERVAL_S: Final = 5
KEEPALIVE_PROBES: Final = 4
USER_TIMEOUT_S: Final = 30
"""A lane may be idle for ever, but a peer that does not answer for this long is gone."""


class Lane:
    """One connection to the peer's carrier. One thread may receive while others send."""

    def __init__(self, sock: socket.socket, number: int, armour: Armour | None = None) -> None:
        """With ``armour`` it is encrypted, and the peer's part of that waited for. Raises StreamError."""
        self.number = number
        self._sock = sock
        self._slow = False
        self.turn = threading.Lock()  # for threads that receive in turns
        self._sending = threading.Lock()
        self._header = memoryview(bytearray(HEADER_BYTES))
        _shrink_buffers(sock)
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            _tune_tcp(sock)
        self._link: Link = armour.link(sock, number) if armour else PlainLink(sock)

    def send(self, header: bytes, payload: Buffer) -> None:
        """Send a whole frame. Raises PeerUnreachable."""
        try:
            with self._sending:
                self._link.send([memoryview(header), memoryview(payload)])
        except OSError as error:
            raise self._lost(error) from None

    def hold_back(self, *, slow: bool) -> None:
        """On a slow link hand the system only what it can send soon (tcp(7), TCP_NOTSENT_LOWAT; 0 is no bound)."""
        if slow is not self._slow and self._sock.family in (socket.AF_INET, socket.AF_INET6):
            self._slow = slow
            unsent = UNSENT_BYTES if slow else 0
            with contextlib.suppress(OSError):  # a lane that is lost, as whoever sends will find out
                self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, unsent)

    def wait(self) -> None:
        """Wait until there is something to receive, undisturbed by those who send (see ``links.wait_readable``)."""
        self._link.wait()

    def receive_header(self) -> Header | None:
        """Wait for a frame; None if the peer closed the lane between two frames.

        Raises StreamError for a header that is none, PeerUnreachable for a lane that broke.
        """
        got = self._receive(self._header)
        if not got:
            return None
        if got < HEADER_BYTES:
            raise StreamError(f"lane {self.number} ended inside a frame")
        return frames.unpack(self._header)

    def receive_payload(self, header: Header, memory: memoryview) -> memoryview:
        """The payload that belongs to ``header``, in ``memory``. Raises StreamError, PeerUnreachable.

        It is not checked yet: ``frames.verify`` can be done while another thread receives.
        """
        payload = memory[: header.wire_bytes]
        if self._receive(payload) < header.wire_bytes:
            raise StreamError(f"lane {self.number} ended inside a frame")
        return payload

    def closed_by_peer(self) -> PeerUnreachable:
        """The error for a lane that ended too early."""
        return PeerUnreachable(f"lane {self.number} was closed by the peer before the stream was complete")

    def abort(self, reason: str) -> None:
        """Tell the peer why this side gives up, unless a frame is under way; then close, whatever happens."""
        payload = frames.abort_payload(reason)
        if self._sending.acquire(blocking=False):
            self._link.send_last(frames.pack(Kind.ABORT, 0, payload) + payload)
        self._link.end()

    def _receive(self, memory: memoryview) -> int:
        try:
            return self._link.receive(memory)
        except OSError as error:
            raise self._lost(error) from None

    def _lost(self, error: OSError) -> PeerUnreachable:
        return PeerUnreachable(f"lane {self.number} to the peer is lost: {error.strerror or error}")


class HypervisorStream:
    """This side's end of the hypervisor's stream. Errors are DriverError."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        _shrink_buffers(sock)

    def wait(self, patience_ms: int | None = None) -> bool:
        """Wait until there is something to receive, undisturbed by those who write (see ``links.wait_readable``).

        False if there was nothing within ``patience_ms``.
        """
        return wait_readable(self._sock, patience_ms)

    def receive(self, memory: memoryview) -> int:
        """Wait for bytes; 0 at the end of the stream."""
        try:
            return self._sock.recv_into(memory)
        except OSError as error:
            raise _broken(error) from None

    def receive_ready(self, memory: memoryview) -> int | None:
        """Bytes that are there already, 0 at the end of the stream, None if there are none yet."""
        try:
            return self._sock.recv_into(memory, 0, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None
        except OSError as error:
            raise _broken(error) from None

    def send(self, data: Buffer) -> None:
        """Write all of ``data``."""
        try:
            self._sock.sendall(data)
        except OSError as error:
            raise _broken(error) from None

    def end(self) -> None:
        """Say that nothing more is written."""
        with contextlib.suppress(OSError):  # the hypervisor may have closed its end, content with what it has
            self._sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Let the hypervisor notice at once that it is over."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)


def _broken(error: OSError) -> DriverError:
    return DriverError(f"the hypervisor's stream is broken: {error.strerror or error}")


def _shrink_buffers(sock: socket.socket) -> None:
    sock.setblocking(True)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BUFFER_BYTES)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SOCKET_BUFFER_BYTES)


def _tune_tcp(sock: socket.socket) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_INTERVAL_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_PROBES)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT_S * 1000)
