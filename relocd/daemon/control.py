"""The control socket: JSON lines for relocctl and xm, as docs/control.md describes them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import Factory, connectionDone
from twisted.logger import Logger
from twisted.protocols.basic import LineOnlyReceiver
from twisted.python.failure import Failure

from relocd.daemon.verbs import VERBS, Desk, Request
from relocd.errors import RelocdError, UsageError

MAX_REQUEST_BYTES = 1 << 20

#: How long clients may take to read their last answer when the daemon ends, in seconds.
FLUSH_S = 1.0


class ControlConnection(LineOnlyReceiver):
    """One request and its answers."""

    log = Logger()
    delimiter = b"\n"
    MAX_LENGTH = MAX_REQUEST_BYTES

    def __init__(self, desk: Desk, answered: set[ControlConnection]) -> None:
        self._desk = desk
        self._answered = answered
        self._asked = False
        self.closed: Deferred[None] = Deferred()
        self._open = True
        self._on_close: list[Callable[[], None]] = []

    def lineReceived(self, line: bytes) -> None:
        """The request; anything after it is ignored."""
        if not self._asked:
            self._asked = True
            work = self._answer(line)
            Deferred.fromCoroutine(work).addErrback(self._unexpected)

    def lineLengthExceeded(self, line: bytes) -> None:
        self._finish(error_object(UsageError(f"a request is longer than {MAX_REQUEST_BYTES} bytes")))

    async def _answer(self, line: bytes) -> None:
        try:
            request = self._parse(line)
            result = await VERBS[request.verb](self._desk, request)
        except RelocdError as error:
            self._finish(error_object(error))
        else:
            self._finish({"event": "result", **result})

    def _parse(self, line: bytes) -> Request:
        try:
            fields = json.loads(line)
        except (ValueError, RecursionError):
            fields = None
        if not isinstance(fields, dict):
            raise UsageError("a request must be one JSON object on one line")
        verb = fields.pop("verb", None)
        if not isinstance(verb, str) or verb not in VERBS:
            raise UsageError(f"unknown verb {verb!r:.40}", hint=f"Known: {', '.join(VERBS)}.")
        return Request(verb, fields, self._emit, self._on_close.append)

    def _emit(self, message: dict[str, Any]) -> None:
        if self._open and self.transport is not None:
            self.transport.write(json.dumps(message).encode() + b"\n")

    def _finish(self, message: dict[str, Any]) -> None:
        self._emit(message)
        if self._open and self.transport is not None:
            self._answered.add(self)
            self.transport.loseConnection()

    def _unexpected(self, failure: Failure) -> None:
        self.log.failure("a control request failed", failure=failure)
        self._finish(
            error_object(RelocdError("an internal error", hint="The log of relocd has the details."))
        )

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._open = False
        self._answered.discard(self)
        self.closed.callback(None)
        for callback in self._on_close:
            callback()


class ControlFactory(Factory):
    """Serves the control socket."""

    noisy = False

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._answered: set[ControlConnection] = set()

    def buildProtocol(self, addr: object) -> ControlConnection:
        return ControlConnection(self._desk, self._answered)

    async def flush(self, reactor: IReactorTime) -> None:
        """Return when the answers given so far are with their clients, those that take them."""
        closed = DeferredList([c.closed for c in self._answered], consumeErrors=True)
        closed.addTimeout(FLUSH_S, reactor, onTimeoutCancel=lambda result, _: result)
        await closed


def listen_control(reactor: Any, path: Path, factory: ControlFactory) -> Any:
    """Serve ``path``, for root only. A socket that a crashed daemon left is replaced; two daemons are kept apart by
    the lock on the state directory."""
    path.unlink(missing_ok=True)
    return reactor.listenUNIX(str(path), factory, mode=0o600)


def error_object(error: RelocdError) -> dict[str, Any]:
    """The error event for an error of relocd's own."""
    return {
        "event": "error",
        "code": error.code,
        "message": str(error),
        "hint": error.hint,
        "exit_code": error.exit_code,
    }
