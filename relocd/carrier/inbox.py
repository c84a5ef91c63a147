"""Frames from all lanes, in order again, for one thread at a time to write."""

from __future__ import annotations

import threading
from collections import deque
from typing import Final

from attrs import frozen

from relocd.pages.frames import Header
from relocd.pages.items import Buffer, Item
from relocd.pages.window import Window

BACKLOG: Final = 2
"""Frames in order that may wait to be written. More would only lengthen the switchover."""


@frozen(eq=False)
class Arrival:
    """A frame that passed all checks. ``memory`` is what its payload lives in and is given back after use."""

    header: Header
    payload: Buffer
    items: tuple[Item, ...] = ()
    digest: bytes = b""
    memory: memoryview | None = None


class Inbox:
    """A window over the lanes. Whoever claims a frame is the only one that writes until it releases."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._window: Window[Arrival] = Window()
        self._ready: deque[Arrival] = deque()
        self._claimed = False

    def admit(self, sequence: int) -> None:
        """Wait until there is room for the frame ``sequence``, before its payload is read."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._ready) < BACKLOG and self._window.admits(sequence))

    def put(self, arrival: Arrival) -> None:
        """Take a frame. Raises StreamError if it was here before."""
        with self._changed:
            self._ready.extend(self._window.put(arrival.header.sequence, arrival))
            self._changed.notify_all()

    def claim(self) -> Arrival | None:
        """The next frame in order; None if it is not here, or another thread is writing and will see to
        it."""
        with self._changed:
            if self._claimed or not self._ready:
                return None
            self._claimed = True
            arrival = self._ready.popleft()
            self._changed.notify_all()
            return arrival

    def release(self) -> None:
        """The claimed frame is written."""
        with self._changed:
            self._claimed = False
