"""Refused connections in the log: a line each, unless they are so many that the log would suffer from them."""

from __future__ import annotations

from typing import Final

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

#: Lines at once, and the seconds after which there may be another one.
LINES: Final = 20
LINE_EACH_S: Final = 3.0


class Refusals:
    """Whoever is refused costs no more than a connection. What is left out is counted and told with the next line."""

    log = Logger()

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._lines: float = LINES
        self._at_s = clock.seconds()
        self._left_out = 0

    def note(self, peer: str, reason: str) -> None:
        """Somebody was refused."""
        now_s = self._clock.seconds()
        self._lines = min(LINES, self._lines + (now_s - self._at_s) / LINE_EACH_S)
        self._at_s = now_s
        if self._lines < 1:
            self._left_out += 1
            return
        self._lines -= 1
        more = f" ({self._left_out} others before it are not in this log)" if self._left_out else ""
        self._left_out = 0
        self.log.warn("refused a connection from {peer}: {reason}{more}", peer=peer, reason=reason, more=more)
