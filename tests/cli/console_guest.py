"""A guest's console for tests: a unix socket whose other end a test plays."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Self

WAIT_S = 20.0


class ConsoleGuest:
    """Listens like a hypervisor's console socket; ``connected`` is the guest's end once somebody attached."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._connected: socket.socket | None = None

    def __enter__(self) -> Self:
        self._listener.bind(str(self.path))
        self._listener.listen()
        self._listener.settimeout(WAIT_S)
        return self

    def __exit__(self, *_exception: object) -> None:
        self._listener.close()
        self.hang_up()

    @property
    def connected(self) -> socket.socket:
        """The guest's end; waits for the first attachment."""
        if self._connected is None:
            self._connected, _ = self._listener.accept()
            self._connected.settimeout(WAIT_S)
        return self._connected

    def hear(self, count: int) -> bytes:
        """Exactly ``count`` bytes that were typed."""
        heard = b""
        while len(heard) < count:
            heard += self.connected.recv(count - len(heard)) or b"<closed>"
        return heard

    def say(self, text: bytes) -> None:
        """Print something on the console."""
        self.connected.sendall(text)

    def hang_up(self) -> None:
        """End the console, as a guest does that powers off."""
        if self._connected is not None:
            self._connected.close()
            self._connected = None
