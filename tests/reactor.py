"""One asyncio reactor for the whole pytest process, running in a thread of its own.

Tests stay synchronous: they hand a coroutine over and wait for its result.

    from tests.reactor import call, run

    def test_create() -> None:
        driver = call(MemoryDriver, config, paths)      # a plain function, in the reactor thread
        status = run(driver.create(config))             # a coroutine of Deferreds, to its end
        assert status.state is DomainState.RUNNING

What is made in the reactor thread must be used there: go through ``call`` and ``run`` for everything that is
not a plain value. Since the reactor has its own thread, a test may block (run a client with ``subprocess``,
read a socket) while a server in the reactor answers it.

Importing this module installs and starts the reactor. It must be imported before anything imports
``twisted.internet.reactor``; modules of relocd import the reactor inside functions only, so the order of the
imports in a test does not matter.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import signal
import socket
import threading
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

from twisted.internet import asyncioreactor, process
from twisted.internet.defer import Deferred

_T = TypeVar("_T")
_P = ParamSpec("_P")

DEFAULT_TIMEOUT_S = 60.0
"""How long ``run`` and ``call`` wait before they give up (and cancel): a test that hangs must say where."""

_loop = asyncio.new_event_loop()
asyncioreactor.install(_loop)


def run(coroutine: Coroutine[Deferred[Any], Any, _T], timeout_s: float = DEFAULT_TIMEOUT_S) -> _T:
    """Run ``coroutine`` in the reactor thread and return its result, or raise what it raised.

    After ``timeout_s`` the coroutine is cancelled (its ``finally`` blocks run) and TimeoutError is raised.
    """
    started: concurrent.futures.Future[_T] = concurrent.futures.Future()
    running: list[Deferred[_T]] = []

    def begin() -> None:
        deferred = Deferred.fromCoroutine(coroutine)
        running.append(deferred)
        deferred.addCallbacks(started.set_result, lambda failure: started.set_exception(failure.value))

    _reactor().callFromThread(begin)
    try:
        return started.result(timeout_s)
    except concurrent.futures.TimeoutError:
        if started.done():
            raise
        _reactor().callFromThread(lambda: running[0].cancel())
        with contextlib.suppress(Exception, asyncio.CancelledError):
            started.exception(timeout=10)
        raise TimeoutError(
            f"{getattr(coroutine, '__qualname__', coroutine)} did not end within {timeout_s} s"
        ) from None


def call(function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """Call ``function`` in the reactor thread and return its result, or raise what it raised."""

    async def calling() -> _T:
        return function(*args, **kwargs)

    return run(calling())


def _reactor() -> Any:
    from twisted.internet import reactor

    return reactor


def _serve() -> None:
    asyncio.set_event_loop(_loop)
    _reactor().run(installSignalHandlers=False)


def _reap_children(wakeup: socket.socket) -> None:
    """Let the reactor learn of the end of its children.

    It cannot set handlers outside the main thread, and a handler in Python would only run once the main
    thread wakes; the wake-up descriptor is written by whatever thread the kernel interrupts.
    """

    def reap() -> None:
        with contextlib.suppress(BlockingIOError):
            wakeup.recv(4096)
        process.reapAllProcesses()

    _loop.add_reader(wakeup, reap)


def _start() -> None:
    reading, writing = socket.socketpair()
    for end in (reading, writing):
        end.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda _signum, _frame: None)
    signal.set_wakeup_fd(writing.detach(), warn_on_full_buffer=False)
    threading.Thread(target=_serve, name="reactor", daemon=True).start()
    call(_reap_children, reading)


_start()
