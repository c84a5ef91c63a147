"""An established channel and the socket it goes over, used like a socket by a thread that may block."""

from __future__ import annotations

import socket
import time
from typing import Final, Self

from relocd.tls.channel import Channel

PIECE_BYTES: Final = 1 << 16
_INSTANT_S: Final = 0.001  # 0 would mean not to wait at all


class TlsStream:
    """What relocd.net.gauge needs of a socket. Errors are OSError, as a socket's are."""

    def __init__(self, sock: socket.socket, channel: Channel) -> None:
        self._sock = sock
        self._channel = channel
        self._rest = memoryview(b"")

    def settimeout(self, seconds: float | None, /) -> None:
        self._sock.settimeout(seconds)

    def setsockopt(self, level: int, option: int, value: bytes, /) -> None:
        self._sock.setsockopt(level, option, value)

    def shutdown(self, how: int, /) -> None:
        self._sock.shutdown(how)

    def send(self, data: bytes | memoryview, /) -> int:
        """Send a piece, whole."""
        piece = memoryview(data)[:PIECE_BYTES]
        self._channel.send(piece)
        self._sock.sendall(self._channel.outgoing())
        return len(piece)

    def sendall(self, data: bytes, /) -> None:
        left = memoryview(data)
        while len(left):
            left = left[self.send(left) :]

    def recv_into(self, memory: bytearray, size: int = 0, /) -> int:
        """Wait for some bytes; 0 at the end. The timeout is for all of it: records may come in small pieces."""
        timeout_s = self._sock.gettimeout()
        deadline_s = time.monotonic() + (timeout_s or 0)
        while not len(self._rest):
            if timeout_s is not None:
                self._sock.settimeout(max(_INSTANT_S, deadline_s - time.monotonic()))
            received = self._sock.recv(PIECE_BYTES)
            self._rest = memoryview(self._channel.receive(received)) if received else self._rest
            if not received or (self._channel.ended and not len(self._rest)):
                return 0
            if timeout_s is not None and not len(self._rest) and time.monotonic() >= deadline_s:
                raise TimeoutError("timed out")
        taken = min(len(self._rest), size or len(memory))
        memory[:taken] = self._rest[:taken]
        self._rest = self._rest[taken:]
        return taken

    def recv(self, size: int, /) -> bytes:
        memory = bytearray(size)
        return bytes(memory[: self.recv_into(memory, size)])

    def close(self) -> None:
        self._sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
