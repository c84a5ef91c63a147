"""The carrier's side of the control socket: events, counters, and the one way to fail."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable
from typing import Final, NoReturn

from attrs import define

from relocd.carrier.control import CarrierFailed, CarrierProgress, Event, dump_event
from relocd.errors import RelocdError
from relocd.pages.items import PAGE_SIZE

PROGRESS_S: Final = 0.2
"""Progress is reported at most this often."""


@define
class Moved:
    """What one frame moved. Sizes in bytes; ``saved_bytes`` is what compression took off."""

    wire_bytes: int = 0
    stream_bytes: int = 0
    pages: int = 0
    zero_pages: int = 0
    saved_bytes: int = 0


class Reporter:
    """Talks to the daemon. All methods may be called by any thread."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._lock = threading.Lock()
        self._failing = threading.Lock()
        self._total = Moved()
        self._progress_due_s = 0.0
        self._closers: list[Callable[[str], None]] = []

    def emit(self, event: Event) -> None:
        """Say something; waits if the daemon does not listen."""
        self._control.send(dump_event(event))

    def count(self, moved: Moved) -> None:
        """Add to the counters; report progress if it is time."""
        now_s = time.monotonic()
        with self._lock:
            total = self._total
            total.wire_bytes += moved.wire_bytes
            total.stream_bytes += moved.stream_bytes
            total.pages += moved.pages
            total.zero_pages += moved.zero_pages
            total.saved_bytes += moved.saved_bytes
            if now_s < self._progress_due_s:
                return
            self._progress_due_s = now_s + PROGRESS_S
            progress = self._counters()
        with contextlib.suppress(BlockingIOError):  # a daemon that is behind needs the newest figures only
            self._control.send(dump_event(progress), socket.MSG_DONTWAIT)

    def counters(self) -> CarrierProgress:
        """All counters as they are now."""
        with self._lock:
            return self._counters()

    def at_failure(self, closer: Callable[[str], None]) -> None:
        """Have ``closer`` called with the reason when the carrier gives up, before the daemon is told."""
        self._closers.append(closer)

    def give_up(self, reason: str) -> None:
        """Tell the peer, and let go of the hypervisor."""
        for closer in self._closers:
            closer(reason)

    def fail(self, error: RelocdError) -> NoReturn:
        """Give up, tell the daemon, and end the process.

        The first failure wins: other threads that fail because of it wait here for the end. Threads block in
        system calls, so nothing but the end of the process reliably ends them; the kernel closes every
        descriptor.
        """
        with self._failing:
            self.give_up(str(error))
            with contextlib.suppress(OSError):
                self.emit(CarrierFailed(error.code, str(error)))
            os._exit(1)

    def _counters(self) -> CarrierProgress:
        total = self._total
        return CarrierProgress(
            wire_bytes=total.wire_bytes,
            stream_bytes=total.stream_bytes,
            pages=total.pages,
            zero_pages=total.zero_pages,
            saved_zero_bytes=total.zero_pages * PAGE_SIZE,
            saved_compression_bytes=total.saved_bytes,
        )
