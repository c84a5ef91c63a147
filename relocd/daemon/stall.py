"""A source that has a place here and sends nothing: it must not hold the place for ever."""

from __future__ import annotations

from typing import Final

from twisted.internet.interfaces import IReactorTime

#: Even where the idle timeout is shorter, the lanes of a slow link may be still for so long [s].
PATIENCE_MIN_S: Final = 30.0


class StallWatch:
    """Watches how much has come over the lanes."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._wire_bytes = -1
        self._since_s = clock.seconds()

    def moved(self, wire_bytes: int) -> None:
        """So much has come by now."""
        if wire_bytes != self._wire_bytes:
            self._wire_bytes = wire_bytes
            self.rest()

    def rest(self) -> None:
        """Nothing is due just now: begin to count anew."""
        self._since_s = self._clock.seconds()

    def stalled_s(self, patience_s: float) -> float:
        """For how long nothing came, if that is longer than it may be; else 0."""
        still_s = self._clock.seconds() - self._since_s
        return still_s if still_s > max(patience_s, PATIENCE_MIN_S) else 0.0
