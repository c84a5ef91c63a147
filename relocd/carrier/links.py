"""How bytes get over a lane: plainly, or through TLS. Both block, and keep little in the socket's buffers."""

from __future__ import annotations

import contextlib
import os
import select
import socket
from collections.abc import Sequence
from typing import Protocol


class Link(Protocol):
    """One connection. One thread may receive while another one sends. Errors are OSError."""

    def send(self, parts: Sequence[memoryview]) -> None:
        """Send all of it."""

    def receive(self, memory: memoryview) -> int:
        """Fill ``memory``; less only if the peer closed."""

    def wait(self) -> None:
        """Wait until there is something to receive, undisturbed by those who send."""

    def send_last(self, data: bytes) -> None:
        """Send as much as goes at once, as the last that is sent."""

    def end(self) -> None:
        """Say that nothing more is sent, also to a thread that waits."""


class PlainLink:
    """A socket as it is."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def send(self, parts: Sequence[memoryview]) -> None:
        left = [part for part in parts if len(part)]
        while left:
            sent = os.writev(self._sock.fileno(), left)  # not sendmsg(2), which could send descriptors, too
            while left and sent >= len(left[0]):
                sent -= len(left.pop(0))
            if sent:
                left[0] = left[0][sent:]

    def receive(self, memory: memoryview) -> int:
        got = 0
        while got < len(memory):
            size = self._sock.recv_into(memory[got:], 0, socket.MSG_WAITALL)
            if not size:
                break
            got += size
        return got

    def wait(self) -> None:
        wait_readable(self._sock)

    def send_last(self, data: bytes) -> None:
        with contextlib.suppress(OSError):
            self._sock.send(data, socket.MSG_DONTWAIT)

    def end(self) -> None:
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_WR)


def wait_readable(sock: socket.socket, timeout_ms: int | None = None) -> bool:
    """Wait in poll(2), for the rarely used direction of a busy socket; False if the time was over.

    The kernel wakes a thread that is blocked in recv(2) also each time that another one may go on to send.
    """
    return wait_for(sock, select.POLLIN, timeout_ms)


def wait_for(sock: socket.socket, events: int, timeout_ms: int | None = None) -> bool:
    """Wait in poll(2) until one of ``events`` is there; False if the time was over."""
    poll = select.poll()
    poll.register(sock, events)
    return bool(poll.poll(timeout_ms))
