"""The carrier's side of the control socket: events, counters, and the one way to fail."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable
from typing import Final, NoReturn

from attrs import define, field, frozen

from relocd.carrier.control import DATAGRAM_BYTES_MAX, CarrierFailed, CarrierProgress, Event, dump_event
from relocd.errors import RelocdError
from relocd.pages.choice import LEVELS
from relocd.pages.items import PAGE_SIZE

PROGRESS_S: Final = 0.2
"""Progress is reported at most this often."""


@frozen
class Moved:
    """What one frame moved. Sizes in bytes; ``saved_bytes`` is what compression took off.

    ``content_bytes`` of a batch travelled at ``level``; ``dense`` says that this is 0 only because it did not shrink.
    """

    wire_bytes: int = 0
    stream_bytes: int = 0
    pages: int = 0
    zero_pages: int = 0
    saved_bytes: int = 0
    content_bytes: int = 0
    level: int = 0
    dense: bool = False


@define
class _Total:
    """The sum of what was moved."""

    wire_bytes: int = 0
    stream_bytes: int = 0
    pages: int = 0
    zero_pages: int = 0
    saved_bytes: int = 0
    dense_bytes: int = 0
    level_bytes: dict[int, int] = field(factory=lambda: dict.fromkeys(LEVELS, 0))

    def add(self, moved: Moved) -> None:
        self.wire_bytes += moved.wire_bytes
        self.stream_bytes += moved.stream_bytes
        self.pages += moved.pages
        self.zero_pages += moved.zero_pages
        self.saved_bytes += moved.saved_bytes
        self.dense_bytes += moved.content_bytes if moved.dense else 0
        self.level_bytes[moved.level] += moved.content_bytes


class Reporter:
    """Talks to the daemon. All methods may be called by any thread."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._lock = threading.Lock()
        self._ending = threading.Lock()
        self._total = _Total()
        self._progress_due_s = 0.0
        self._closers: list[Callable[[str], None]] = []

    def emit(self, event: Event) -> None:
        """Say something; waits if the daemon does not listen just now."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # gone: the main thread sees to that
            self._control.send(dump_event(event))

    def count(self, moved: Moved) -> None:
        """Add to the counters; report progress if it is time."""
        now_s = time.monotonic()
        with self._lock:
            self._total.add(moved)
            if now_s < self._progress_due_s:
                return
            self._progress_due_s = now_s + PROGRESS_S
            progress = self._counters()
        with contextlib.suppress(OSError):  # a daemon that is behind needs the newest figures only
            self._control.send(dump_event(progress), socket.MSG_DONTWAIT)

    def counters(self) -> CarrierProgress:
        """All counters as they are now."""
        with self._lock:
            return self._counters()

    def at_failure(self, closer: Callable[[str], None]) -> None:
        """Have ``closer`` called with the reason when the carrier gives up, before the daemon is told."""
        self._closers.append(closer)

    def quit(self, *, complete: bool) -> NoReturn:
        """End the process because the daemon wants it, or is gone; give up what is not complete."""
        with self._ending:
            if not complete:
                self._give_up("its daemon ended the relocation")
            os._exit(0)

    def fail(self, error: RelocdError) -> NoReturn:
        """Tell the peer, let go of the hypervisor, tell the daemon, and end the process.

        The first reason to end wins; other threads that fail because of it wait here for the end. Threads block in
        system calls, so nothing but the end of the process reliably ends them; the kernel closes every descriptor.
        """
        with self._ending:
            self._give_up(str(error))
            self._discard_commands()
            self.emit(CarrierFailed(error.code, str(error)))
            os._exit(1)

    def _give_up(self, reason: str) -> None:
        for closer in self._closers:
            closer(reason)

    def _discard_commands(self) -> None:
        """A unix socket closed with messages unread gives its peer an error before the messages sent to it."""
        with contextlib.suppress(OSError):
            self._control.shutdown(socket.SHUT_RD)
            while self._control.recv(DATAGRAM_BYTES_MAX, socket.MSG_DONTWAIT):
                pass

    def _counters(self) -> CarrierProgress:
        total = self._total
        return CarrierProgress(
            wire_bytes=total.wire_bytes,
            stream_bytes=total.stream_bytes,
            pages=total.pages,
            zero_pages=total.zero_pages,
            saved_zero_bytes=total.zero_pages * PAGE_SIZE,
            saved_compression_bytes=total.saved_bytes,
            dense_bytes=total.dense_bytes,
            level_bytes=tuple(total.level_bytes.values()),
        )
