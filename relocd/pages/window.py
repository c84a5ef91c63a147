"""Back in order: frames come over several lanes, the stream has one order."""

from __future__ import annotations

from typing import Generic, TypeVar

from relocd.errors import StreamError
from relocd.pages.limits import WINDOW

T = TypeVar("T")


class Window(Generic[T]):
    """Takes items in any order, gives them back by sequence. Holds at most ``size`` of them."""

    def __init__(self, size: int = WINDOW, first: int = 0) -> None:
        self._size = size
        self._next = first
        self._waiting: dict[int, T] = {}

    @property
    def next(self) -> int:
        """The sequence that everything waits for."""
        return self._next

    def admits(self, sequence: int) -> bool:
        """Whether ``sequence`` is not yet too far ahead. A receiver waits for this before it reads the
        payload."""
        return sequence < self._next + self._size

    def put(self, sequence: int, item: T) -> list[T]:
        """Take one item; return all that are in order now, this one included or not.

        Raises StreamError for a sequence that was here before or is too far ahead.
        """
        if sequence < self._next or sequence in self._waiting:
            raise StreamError(f"frame {sequence} came twice")
        if not self.admits(sequence):
            raise StreamError(f"frame {sequence} is too far ahead of frame {self._next}")
        self._waiting[sequence] = item
        return self._take_ready()

    def _take_ready(self) -> list[T]:
        ready = []
        while self._next in self._waiting:
            ready.append(self._waiting.pop(self._next))
            self._next += 1
        return ready
