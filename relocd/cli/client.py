"""The client's side of relocd's control socket: one request a connection, JSON lines (docs/control.md)."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
from collections.abc import Callable, Iterator
from typing import IO, Any

from relocd.cli.exitcodes import FAILURE, code_of
from relocd.errors import ProtocolError, RelocdError, UsageError

DEFAULT_SOCKET = "/run/relocd/control.sock"
SOCKET_VARIABLE = "RELOCD_SOCKET"
MAX_LINE_BYTES = 1024 * 1024  # docs/control.md, both directions
CONNECT_TIMEOUT_S = 10.0

JsonObject = dict[str, Any]
"""One object as it came from the daemon; :mod:`relocd.cli.replies` gives the known ones a shape."""


class DaemonError(RelocdError):
    """relocd answered with an error. ``reply`` is the whole object; ``reply_code`` its stable name."""

    def __init__(self, reply: JsonObject) -> None:
        message = str(reply.get("message") or reply.get("error") or "relocd reports an error without a text")
        super().__init__(message, hint=str(reply.get("hint") or ""))
        self.reply = reply
        self.reply_code = str(reply.get("code") or code_of(self.status))

    @property
    def status(self) -> int:
        """The exit code that relocd asks for."""
        status = self.reply.get("exit_code")
        return status if isinstance(status, int) and 0 < status < 256 else FAILURE


class DaemonUnavailableError(RelocdError):
    """No connection to relocd."""

    code = "no-daemon"


class NoAnswerError(RelocdError):
    """relocd took the request and the connection ended, or stayed silent, before it answered."""

    code = "no-answer"

    def __init__(self, message: str) -> None:
        super().__init__(message, hint="'systemctl status relocd' and relocd's log say more.")


def socket_path(option: str | None = None) -> str:
    """The control socket: the option, else the variable RELOCD_SOCKET, else /run/relocd/control.sock."""
    return option or os.environ.get(SOCKET_VARIABLE) or DEFAULT_SOCKET


class Client:
    """Speaks to the daemon behind one socket. Every call is a connection of its own."""

    def __init__(self, path: str) -> None:
        self.path = path

    def call(
        self,
        verb: str,
        *,
        on_progress: Callable[[JsonObject], None] | None = None,
        timeout_s: float | None = None,
        **fields: object,
    ) -> JsonObject:
        """Send one request and return its result object. Fields that are None are left out.

        ``on_progress`` gets every progress object before that; relocd may stay silent for ``timeout_s``.
        Raises DaemonUnavailableError, NoAnswerError, DaemonError (relocd's own error), ProtocolError
        and UsageError.
        """
        request = _encode({"verb": verb} | {key: value for key, value in fields.items() if value is not None})
        with contextlib.closing(self._connect()) as connection, connection.makefile("rb") as lines:
            try:
                connection.settimeout(timeout_s)
                connection.sendall(request)
                for event in _events(lines):
                    match event.get("event"):
                        case "result":
                            return event
                        case "error":
                            raise DaemonError(event)
                        case "progress" if on_progress is not None:
                            on_progress(event)
            except TimeoutError:
                raise NoAnswerError(f"relocd did not answer within {timeout_s:g} s.") from None
            except (ConnectionError, BrokenPipeError) as error:
                raise NoAnswerError(f"The connection to relocd was lost: {error.strerror}.") from None
        raise NoAnswerError("relocd closed the connection without an answer.")

    def _connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.settimeout(CONNECT_TIMEOUT_S)
            connection.connect(self.path)
        except OSError as error:
            connection.close()
            raise _unavailable(self.path, error) from None
        return connection


def _unavailable(path: str, error: OSError) -> DaemonUnavailableError:
    """What hinders the connection, in the words that xm had for it."""
    reason = error.strerror or str(error)
    if error.errno in (errno.EACCES, errno.EPERM):
        return DaemonUnavailableError(
            f"Unable to connect to relocd: {reason}. Most commands need root access.",
            hint=f"Try again as root, for example with sudo ({path} belongs to root).",
        )
    return DaemonUnavailableError(
        f"Unable to connect to relocd: {reason}. Is relocd running?",
        hint=f"Start it with 'systemctl start relocd' (tried {path}; {SOCKET_VARIABLE} names another one).",
    )


def _encode(request: JsonObject) -> bytes:
    line = json.dumps(request).encode() + b"\n"
    if len(line) > MAX_LINE_BYTES:
        raise UsageError(f"The request is {len(line)} bytes long, {MAX_LINE_BYTES} are allowed.")
    return line


def _events(lines: IO[bytes]) -> Iterator[JsonObject]:
    """Every object that relocd sends. A line cut off by the end of the connection is no object."""
    while line := lines.readline(MAX_LINE_BYTES + 1):
        if not line.endswith(b"\n"):
            if len(line) > MAX_LINE_BYTES:
                raise _nonsense(f"a line of more than {MAX_LINE_BYTES} bytes")
            return
        try:
            event = json.loads(line)
        except ValueError:
            raise _nonsense("a line that is not JSON") from None
        if not isinstance(event, dict):
            raise _nonsense("a line that is not an object")
        yield event


def _nonsense(what: str) -> ProtocolError:
    return ProtocolError(
        f"relocd sent {what}.", hint="Are this command and the daemon of the same version? Restart relocd."
    )
