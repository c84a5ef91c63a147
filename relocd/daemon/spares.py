"""A carrier that waits to be needed: to start one takes some tenths of a second, and a domain waits for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from relocd.carrier.control import CarrierFailed, Event
from relocd.daemon.carriers import Carrier, CarrierDied

QUIET_S: Final = 3.0
"""For how long no carrier has been at work when a spare one is started: it takes nothing from a domain that is on its
way, or from one that has just resumed."""
RETRY_S: Final = 60.0
"""After one that could not be started, or that has died idle."""


class Spares:
    """Gives out carriers, and keeps one ready while none is at work. It is idle, and has heard of nobody yet."""

    log = Logger()

    def __init__(self, reactor: Any, quiet_s: float = QUIET_S, retry_s: float = RETRY_S) -> None:
        self._reactor = reactor
        self._quiet_s, self._retry_s = quiet_s, retry_s
        self._spare: Carrier | None = None
        self._at_work = 0
        self._wanted = False
        self._refill: IDelayedCall | None = None

    def start(self) -> None:
        """From now on have one ready when it has been quiet for a while."""
        self._wanted = True
        self._refill_in(self._quiet_s)

    def take(self, on_event: Callable[[Event | CarrierDied], None]) -> Carrier:
        """A carrier for one relocation; ``on_event`` hears what it says from now on."""
        if self._spare is not None:
            self._spare.doRead()  # it may have died just now
        self._cancel_refill()
        carrier = self._spare or Carrier.start(self._reactor)
        self._spare = None
        self._at_work += 1
        carrier.use(on_event, self._work_is_over)
        return carrier

    def stop(self) -> None:
        """End the one that waits. Those at work are their relocations'."""
        self._wanted = False
        self._cancel_refill()
        carrier, self._spare = self._spare, None
        if carrier is not None:
            carrier.close()

    def _work_is_over(self) -> None:
        self._at_work -= 1
        self._refill_in(self._quiet_s)

    def _refill_in(self, delay_s: float) -> None:
        self._cancel_refill()
        if self._wanted and not self._at_work:
            self._refill = self._reactor.callLater(delay_s, self._start_spare)

    def _cancel_refill(self) -> None:
        if self._refill is not None and self._refill.active():
            self._refill.cancel()

    def _start_spare(self) -> None:
        try:
            self._spare = Carrier.start(self._reactor)
        except OSError as error:
            self._trouble(str(error))
        else:
            self._spare.use(self._heard, self._spare_is_gone)

    def _heard(self, event: Event | CarrierDied) -> None:
        if isinstance(event, CarrierFailed | CarrierDied):
            self._trouble(event.text)

    def _spare_is_gone(self) -> None:
        self._spare = None

    def _trouble(self, why: str) -> None:
        """A relocation starts one for itself then, and tells if that does not work either."""
        self.log.warn("no carrier waits for the next relocation: {why}", why=why)
        self._refill_in(self._retry_s)
