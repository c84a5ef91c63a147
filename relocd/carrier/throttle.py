"""A limit on bytes per second. ``TokenBucket`` is arithmetic; ``Throttle`` waits."""

from __future__ import annotations

import threading
import time
from typing import Final

BURST_S: Final = 0.02
"""What was not used may be used later, this far back: a link at rest answers at once."""


class TokenBucket:
    """Says how long to wait before so many bytes may go. Time is an argument, in seconds."""

    def __init__(self) -> None:
        self._bytes_per_s = 0
        self._paid_until_s = 0.0

    def limit(self, bytes_per_s: int) -> None:
        """Change the limit; 0 lifts it. What was put off under the old one is forgiven."""
        self._bytes_per_s = bytes_per_s
        self._paid_until_s = 0.0

    def take(self, size_bytes: int, now_s: float) -> float:
        """Take ``size_bytes``; return how many seconds to wait before sending them."""
        if not self._bytes_per_s:
            return 0.0
        start_s = max(self._paid_until_s, now_s - BURST_S)
        self._paid_until_s = start_s + size_bytes / self._bytes_per_s
        return max(0.0, start_s - now_s)


class Throttle:
    """Holds senders back. A change of the limit lets those who wait go at once."""

    def __init__(self) -> None:
        self._bucket = TokenBucket()
        self._changed = threading.Condition()
        self._changes = 0

    def limit(self, bytes_per_s: int) -> None:
        """Change the limit; 0 lifts it."""
        with self._changed:
            self._bucket.limit(bytes_per_s)
            self._changes += 1
            self._changed.notify_all()

    def wait(self, size_bytes: int) -> None:
        """Return when ``size_bytes`` may go."""
        with self._changed:
            delay_s = self._bucket.take(size_bytes, time.monotonic())
            if delay_s:
                seen = self._changes
                self._changed.wait_for(lambda: self._changes != seen, delay_s)
