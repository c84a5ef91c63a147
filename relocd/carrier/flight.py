"""Which frames are between reading and the lane, so that none runs too far ahead of another."""

from __future__ import annotations

import threading

from relocd.pages.limits import WINDOW


class Flight:
    """Sequences that were given out and are not yet wholly handed to a lane."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._out: set[int] = set()
        self._next = 0

    def depart(self) -> int:
        """The next sequence. Waits while the oldest one out is WINDOW behind (see ``limits.WINDOW`` for
        why)."""
        with self._changed:
            sequence = self._next
            self._next += 1
            if self._out and sequence >= min(self._out) + WINDOW:
                self._changed.wait_for(lambda: not self._out or sequence < min(self._out) + WINDOW)
            self._out.add(sequence)
            return sequence

    def arrive(self, sequence: int) -> None:
        """A frame is wholly handed to its lane."""
        with self._changed:
            self._out.remove(sequence)
            self._changed.notify_all()

    def drain(self) -> None:
        """Wait until none is out."""
        with self._changed:
            self._changed.wait_for(lambda: not self._out)
