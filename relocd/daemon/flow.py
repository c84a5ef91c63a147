"""How much a peer may say in a while, and how much it may leave unread."""

from __future__ import annotations

from typing import Final

from relocd.errors import ProtocolError

#: Messages of one peer in a second. An honest one says two or three, and what gathered while this host was busy.
MESSAGES_PER_S_MAX: Final = 200

#: Bytes of one peer's messages in a second: the worst of them take a millisecond for each KiB.
MESSAGE_BYTES_PER_S_MAX: Final = 256 << 10

#: What may wait for a peer that does not read, beside what the system has taken [bytes]; a message has up to 64 KiB.
UNREAD_BYTES_MAX: Final = 256 << 10


class Pace:
    """Counts lines, blank ones too: each costs some of the reactor's time."""

    def __init__(self) -> None:
        self._since_s = 0.0
        self._lines = self._bytes = 0

    def count(self, now_s: float, size_bytes: int) -> None:
        """One more line came. Raises ProtocolError if they are too many or too long."""
        if now_s - self._since_s >= 1.0:
            self._since_s, self._lines, self._bytes = now_s, 0, 0
        self._lines += 1
        self._bytes += size_bytes
        if self._lines > MESSAGES_PER_S_MAX or self._bytes > MESSAGE_BYTES_PER_S_MAX:
            most = f"{MESSAGES_PER_S_MAX} messages or {MESSAGE_BYTES_PER_S_MAX} bytes"
            raise ProtocolError(f"more than {most} in a second")
