"""How large batches may be, so that little is under way on a slow link.

What was read from the hypervisor and is not yet at the target has to arrive while the domain is paused. On a fast
link full batches are a few milliseconds; at 10 Mbit/s one would be 0.4 s. So batches follow the rate at which content
was handed to the lanes, counting only the time in which that was being done: a hypervisor that has nothing to say is
no slow link. No clock here: the caller says what time it is.
"""

from __future__ import annotations

from typing import Final

from relocd.pages.batch import TARGET_BYTES

UNDER_WAY_S: Final = 0.05
"""What is under way at the source shall be sent within this time."""
BATCH_BYTES_MIN: Final = 32 << 10
"""The smallest size to aim for: below it the work for each batch costs more than it saves."""
WINDOW_S: Final = 0.1
"""A rate is taken over so much time of sending."""


def batch_bytes(rate_bytes_s: float, lanes: int) -> int:
    """The size to aim for at this rate of all lanes together.

    Under way are a batch for each of ``lanes + 1`` threads, and as much again in the buffer of each lane.
    """
    fair = rate_bytes_s * UNDER_WAY_S / (2 * lanes + 1)
    return round(min(max(fair, BATCH_BYTES_MIN), TARGET_BYTES))


class Pace:
    """The rate of one stream. Say ``begin`` before a frame is handed to a lane, ``end`` when that is done."""

    def __init__(self, lanes: int) -> None:
        self.batch_bytes = TARGET_BYTES
        self._lanes = lanes
        self._sending = 0
        self._since_s = 0.0
        self._busy_s = 0.0
        self._bytes = 0

    @property
    def slow(self) -> bool:
        """Whether less than a full batch is aimed for."""
        return self.batch_bytes < TARGET_BYTES

    def begin(self, now_s: float) -> None:
        """A thread begins to hand over a frame; others may be about it already."""
        if not self._sending:
            self._since_s = now_s
        self._sending += 1

    def end(self, content_bytes: int, now_s: float) -> None:
        """It has, and the frame held so much content, before compression."""
        self._busy_s += now_s - self._since_s
        self._since_s = now_s
        self._sending -= 1
        self._bytes += content_bytes
        if self._busy_s >= WINDOW_S:
            self.batch_bytes = batch_bytes(self._bytes / self._busy_s, self._lanes)
            self._busy_s, self._bytes = 0.0, 0
