"""A small synchronous client of QEMU's monitor protocol (QMP), over a connected socket."""

from __future__ import annotations

import json
import socket
import time
from collections import deque
from collections.abc import Container
from typing import Any

from .commands import TestbedError

ANSWER_S = 30.0  # QEMU under load, emulating, on a busy machine


class QmpError(TestbedError):
    """QEMU refused a command."""


class QmpSilence(TestbedError):
    """QEMU did not say in time what was waited for."""


class Qmp:
    """One connection. Not for use from several threads at once. Events are kept until somebody waits for them."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._buffer = b""
        self._events: deque[dict[str, Any]] = deque()
        self._read(time.monotonic() + ANSWER_S)  # the greeting
        self.command("qmp_capabilities")

    def command(self, name: str, **arguments: Any) -> Any:
        """Run a command and return its answer; ``_`` in the names of arguments stands for ``-``."""
        values = {key.replace("_", "-"): value for key, value in arguments.items()}
        self._sock.settimeout(ANSWER_S)
        self._sock.sendall(json.dumps({"execute": name, "arguments": values}).encode() + b"\n")
        deadline = time.monotonic() + ANSWER_S
        while True:
            message = self._read(deadline)
            if "event" in message:
                self._events.append(message)
            elif "error" in message:
                raise QmpError(f"{name}: {message['error']['desc']}")
            else:
                return message["return"]

    def human(self, line: str) -> str:
        """Run a line of the human monitor."""
        return str(self.command("human-monitor-command", command_line=line))

    def wait_event(self, names: Container[str], timeout_s: float) -> dict[str, Any]:
        """The next event with one of these names, also one that came before the call; others are dropped.

        Raises QmpSilence if there is none in time.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            message = self._events.popleft() if self._events else self._read(deadline)
            if message.get("event") in names:
                return message

    def wait_migration(self, statuses: Container[str], timeout_s: float) -> str:
        """The next status of a migration that is one of these. The capability ``events`` must be on."""
        deadline = time.monotonic() + timeout_s
        while True:
            event = self.wait_event(("MIGRATION",), max(0.0, deadline - time.monotonic()))
            status = str(event["data"]["status"])
            if status in statuses:
                return status

    def close(self) -> None:
        """Close the connection."""
        self._sock.close()

    def _read(self, deadline: float) -> dict[str, Any]:
        while b"\n" not in self._buffer:
            self._sock.settimeout(max(0.001, deadline - time.monotonic()))
            try:
                data = self._sock.recv(65536)
            except TimeoutError as error:
                raise QmpSilence("QEMU did not say in time what was waited for") from error
            if not data:
                raise TestbedError("QEMU closed its monitor: it has ended")
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        message: dict[str, Any] = json.loads(line)
        return message
