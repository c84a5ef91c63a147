"""Run a coroutine beside the caller; whatever it does not handle itself ends in the log, never in silence."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from relocd.errors import RelocdError

#: Pauses between tries of what must succeed in the end, in seconds: doubled from the first to the last.
RETRY_FIRST_S, RETRY_LAST_S = 0.5, 30.0

_log = Logger()


def background(work: Coroutine[Deferred[Any], Any, Any], what: str) -> Deferred[None]:
    """Start ``work`` and return a Deferred that fires with None when it has ended, whatever happened."""

    def report(failure: Failure) -> None:
        if not failure.check(CancelledError):
            _log.failure("{what} failed", failure=failure, what=what)

    return Deferred.fromCoroutine(work).addCallbacks(lambda _: None, report)


async def insist(reactor: Any, action: Callable[[], Awaitable[None]], what: str) -> None:
    """Do what has to be done, as often as it takes; every failure is in the log."""
    pause_s = RETRY_FIRST_S
    while True:
        try:
            await action()
        except RelocdError as error:
            _log.critical("{what} failed and is tried again: {error}", what=what, error=error)
        else:
            return
        await deferLater(reactor, pause_s)
        pause_s = min(pause_s * 2, RETRY_LAST_S)
