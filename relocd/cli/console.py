"""A domain's console on this terminal: bytes both ways over its unix socket until Ctrl-] or its end."""

from __future__ import annotations

import contextlib
import enum
import os
import select
import signal
import socket
import sys
import termios
import tty
from collections.abc import Iterator

from attrs import define, field

from relocd.cli.failures import report
from relocd.errors import DriverError

ESCAPE = b"\x1d"
"""Ctrl-], as with xenconsole and telnet."""

CHUNK_BYTES = 4096
MAX_UNSENT_BYTES = 64 * 1024
"""What is read ahead of a guest that does not take its input, for instance a paused one."""

QUIET_S = 1.0
"""After the end of piped input the guest's answer is shown until it has been silent for so long."""


class Ending(enum.Enum):
    """Why an attachment ended."""

    LEFT = "left"  # the user typed Ctrl-]
    GUEST_GONE = "guest gone"  # the console was closed on the other side
    INPUT_ENDED = "input ended"  # piped input came to its end, and the guest said no more


def attach(name: str, path: str, *, quiet: bool = False) -> Ending:
    """Connect stdin and stdout with the console at ``path``. Raises DriverError if there is none.

    On a terminal the hints (unless ``quiet``) go to stderr, and its modes are restored whatever happens.
    """
    with contextlib.closing(_connect(name, path)) as connection, _signals_end_it():
        interactive = os.isatty(sys.stdin.fileno())
        hints = interactive and not quiet
        if hints:
            report(f"Connected to the console of '{name}'. Ctrl-] leaves it.", prefix="")
        with _raw_terminal(sys.stdin.fileno(), interactive):
            ending = _Attachment(connection, sys.stdin.fileno(), sys.stdout.fileno(), interactive).run()
    if ending is Ending.GUEST_GONE:
        report(f"The console of '{name}' was closed: the domain has stopped or moved.", prefix="")
    elif hints:
        report(f"Left the console of '{name}'; the domain goes on.", prefix="\n")
    return ending


def _connect(name: str, path: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.connect(path)
    except OSError as error:
        connection.close()
        raise DriverError(
            f"Cannot reach the console of '{name}' at {path}: {error.strerror or error}.",
            hint="'relocctl list' shows whether the domain still runs.",
        ) from None
    connection.setblocking(False)
    return connection


@contextlib.contextmanager
def _raw_terminal(descriptor: int, interactive: bool) -> Iterator[None]:
    """Let every key reach the guest while the context lasts."""
    if not interactive:
        yield
        return
    saved = termios.tcgetattr(descriptor)
    try:
        tty.setraw(descriptor)
        yield
    finally:
        with contextlib.suppress(termios.error):  # the terminal itself may be gone
            termios.tcsetattr(descriptor, termios.TCSADRAIN, saved)


@contextlib.contextmanager
def _signals_end_it() -> Iterator[None]:
    """Turn the signals that would kill the process into SystemExit, so that the terminal is restored."""

    def leave(number: int, _frame: object) -> None:
        raise SystemExit(128 + number)

    former = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


@define
class _Attachment:
    """The bytes between a terminal (or pipes) and a console socket that does not block."""

    connection: socket.socket
    source: int
    sink: int
    interactive: bool
    _unsent: bytearray = field(factory=bytearray, init=False)
    _input_open: bool = field(default=True, init=False)

    def run(self) -> Ending:
        """Copy until one of the endings."""
        ending = None
        while ending is None:
            ending = self._step()
        return ending

    def _step(self) -> Ending | None:
        reads: list[socket.socket | int] = [self.connection]
        if self._input_open and len(self._unsent) < MAX_UNSENT_BYTES:
            reads.append(self.source)
        writes = [self.connection] if self._unsent else []
        idle_s = None if self._input_open or self._unsent else QUIET_S
        readable, writable, _ = select.select(reads, writes, [], idle_s)
        if not readable and not writable:
            return Ending.INPUT_ENDED
        try:
            if self.connection in readable and not self._receive():
                return Ending.GUEST_GONE
            if self.source in readable and not self._read():
                return Ending.LEFT
            if writable:
                self._send()
        except ConnectionError:
            return Ending.GUEST_GONE
        return None

    def _receive(self) -> bool:
        """Show what the guest says; False at the end of the console."""
        data = self.connection.recv(CHUNK_BYTES)
        view = memoryview(data)
        while view:
            view = view[os.write(self.sink, view) :]
        return bool(data)

    def _read(self) -> bool:
        """Take what the user typed; False for Ctrl-], with everything before it sent."""
        data = os.read(self.source, CHUNK_BYTES)
        self._input_open = bool(data)
        before, escape, _ = data.partition(ESCAPE) if self.interactive else (data, b"", b"")
        self._unsent += before
        if escape:
            self._send()
        return not escape

    def _send(self) -> None:
        with contextlib.suppress(BlockingIOError):
            del self._unsent[: self.connection.send(self._unsent)]
