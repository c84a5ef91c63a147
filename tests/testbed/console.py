"""The serial console of a guest, read in the background so that nothing that it prints is lost."""

from __future__ import annotations

import socket
import threading
import time

from .commands import TestbedError


class Console:
    """Collects what comes out of a console socket. ``text`` grows; it never forgets."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._changed = threading.Condition()
        self._text = ""
        self._closed = False
        threading.Thread(target=self._collect, name="console", daemon=True).start()

    @property
    def text(self) -> str:
        """Everything so far."""
        with self._changed:
            return self._text

    def send(self, line: str) -> None:
        """Type a line."""
        self._sock.sendall(line.encode() + b"\n")

    def wait_for(self, words: str, timeout_s: float, *, after: int = 0) -> int:
        """Return where ``words`` end, once they appear behind position ``after``. Raises TestbedError."""
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while (at := self._text.find(words, after)) < 0:
                left = deadline - time.monotonic()
                if self._closed or left <= 0:
                    why = "ended" if self._closed else f"was silent about it for {timeout_s} s"
                    raise TestbedError(
                        f"waiting for {words!r}: the guest {why}; its last words: {self._text[-1000:]!r}"
                    )
                self._changed.wait(left)
            return at + len(words)

    def close(self) -> None:
        """Close the socket; the text stays."""
        self._sock.close()

    def _collect(self) -> None:
        data = b"-"
        while data:
            try:
                data = self._sock.recv(65536)
            except OSError:  # closed under our feet
                data = b""
            with self._changed:
                self._text += data.decode(errors="replace")
                self._closed = not data
                self._changed.notify_all()
