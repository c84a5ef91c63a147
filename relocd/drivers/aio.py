"""The bridge from asyncio to coroutines of Deferreds: the reactor is Twisted's asyncio reactor."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

_T = TypeVar("_T")
_log = Logger()


async def awaited(work: Coroutine[Any, Any, _T] | asyncio.Future[_T]) -> _T:
    """Await an asyncio coroutine or future. Cancelling the Deferred that runs the caller cancels ``work``.

    Raises Twisted's CancelledError then: asyncio's is no Exception, and Twisted code does not expect it.
    """
    try:
        return await Deferred.fromFuture(asyncio.ensure_future(work))
    except asyncio.CancelledError:
        raise CancelledError from None


def background(work: Coroutine[Deferred[Any], Any, Any], what: str) -> Deferred[None]:
    """Run ``work`` beside the caller; what it raises is logged. The Deferred fires when it has ended."""

    def report(failure: Failure) -> None:
        if not failure.check(CancelledError):
            _log.failure("{what} failed", failure=failure, what=what)

    return Deferred.fromCoroutine(work).addCallbacks(lambda _: None, report)


class OneShot:
    """Something that happens once; everyone who waits for it, before or after, gets through."""

    def __init__(self) -> None:
        self._fired = False
        self._listeners: list[Callable[[], object]] = []

    @property
    def fired(self) -> bool:
        """It has happened."""
        return self._fired

    def fire(self) -> None:
        """It happens now. Idempotent."""
        self._fired = True
        listeners, self._listeners = self._listeners, []
        for listener in listeners:
            listener()

    def then(self, listener: Callable[[], object]) -> None:
        """Have ``listener`` called when it happens; at once if it has."""
        if self._fired:
            listener()
        else:
            self._listeners.append(listener)

    def forget(self) -> None:
        """Call nobody any more."""
        self._listeners.clear()

    async def wait(self, timeout_s: float | None = None) -> bool:
        """Wait for it; False if it has not happened within ``timeout_s``."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.then(lambda: None if future.done() else future.set_result(None))
        try:
            await awaited(asyncio.wait_for(future, timeout_s))
        except TimeoutError:
            return False
        return True
