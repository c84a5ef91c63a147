"""How much a peer may say in a while, and how much it may leave unread."""

from __future__ import annotations

from typing import Final

from relocd.errors import ProtocolError

#: Messages of one peer in a second. An honest one says two or three, and what gathered while this host was busy.
MESSAGES_PER_S_MAX: Final = 200

#: What may wait for a peer that does not read, beside what the system has taken [bytes]; a message has up to 64 KiB.
UNREAD_BYTES_MAX: Final = 256 << 10


class Pace:
    """Counts lines, blank ones too: each costs some ten microseconds of the reactor's time."""

    def __init__(self) -> None:
        self._since_s = 0.0
        self._lines = 0

    def count(self, now_s: float) -> None:
        """One more line came. Raises ProtocolError if they are too many."""
        if now_s - self._since_s >= 1.0:
            self._since_s, self._lines = now_s, 0
        self._lines += 1
        if self._lines > MESSAGES_PER_S_MAX:
            raise ProtocolError(f"more than {MESSAGES_PER_S_MAX} messages in a second")
