"""How fast a connection is: one side sends bytes without meaning, the other counts. Blocking, for threads.

Every call ends in time, whatever the peer does. Sockets stay the caller's.
"""

from __future__ import annotations

import os
import time
from typing import Final, Protocol

from attrs import frozen

CHUNK_BYTES: Final = 1 << 18
SLOW_START_S: Final = 0.1
"""TCP needs so long to find out what the path carries; if there is more than twice that, it does not count."""

FIRST_BYTE_S: Final = 3.0
"""How long the counting side waits for the beginning."""

LINE_MAX_BYTES: Final = 256


class Stream(Protocol):
    """What is used of a socket, or of one with TLS around it."""

    def settimeout(self, seconds: float | None, /) -> None: ...

    def send(self, data: memoryview, /) -> int: ...

    def recv(self, size: int, /) -> bytes: ...

    def recv_into(self, memory: bytearray, size: int = 0, /) -> int: ...


@frozen
class Arrived:
    """What was counted: bytes, and the seconds that they took."""

    size_bytes: int
    duration_s: float


def send(sock: Stream, size_bytes: int, duration_s: float, limit_bytes_s: int = 0) -> int:
    """Send so much, for so long, no faster than the limit (0: none); returns how much was taken by the system.

    Ends early, without an error, if the peer does not read or hangs up: what it counted says the rest.
    """
    content = memoryview(os.urandom(CHUNK_BYTES))  # a path that compresses must not look faster than it is
    began_s, sent = time.monotonic(), 0
    while sent < size_bytes and (left_s := began_s + duration_s - time.monotonic()) > 0:
        sock.settimeout(left_s)
        try:
            sent += sock.send(content[: size_bytes - sent])
        except OSError:
            break
        if limit_bytes_s:
            ahead_s = sent / limit_bytes_s - (time.monotonic() - began_s)
            time.sleep(max(0.0, min(ahead_s, began_s + duration_s - time.monotonic())))
    return sent


def count(sock: Stream, size_bytes: int, duration_s: float) -> Arrived:
    """Count what arrives, until so much is there, the time is over, or the peer ends it. Raises OSError."""
    buffer = bytearray(CHUNK_BYTES)
    sock.settimeout(FIRST_BYTE_S)
    began_bytes = total = sock.recv_into(buffer)
    began_s = last_s = slow_s = time.monotonic()
    slow_bytes = began_bytes
    while total < size_bytes and (left_s := began_s + duration_s - time.monotonic()) > 0:
        sock.settimeout(left_s)
        try:
            received = sock.recv_into(buffer, min(CHUNK_BYTES, size_bytes - total))
        except TimeoutError:
            last_s = time.monotonic()
            break
        last_s = time.monotonic()
        if not received:
            break
        total += received
        if last_s - began_s <= SLOW_START_S:
            slow_s, slow_bytes = last_s, total
    if last_s - began_s > 2 * SLOW_START_S and total > slow_bytes:
        return Arrived(total - slow_bytes, last_s - slow_s)
    return Arrived(total - began_bytes, last_s - began_s)


def read_line(sock: Stream, timeout_s: float) -> bytes:
    """One short line. Raises OSError, and ValueError for what is none."""
    deadline_s, line = time.monotonic() + timeout_s, b""
    while not line.endswith(b"\n"):
        sock.settimeout(max(0.001, deadline_s - time.monotonic()))
        received = sock.recv(LINE_MAX_BYTES - len(line))
        if not received:
            raise ConnectionResetError("the peer hung up")
        line += received
        if b"\n" in line[:-1] or (len(line) >= LINE_MAX_BYTES and not line.endswith(b"\n")):
            raise ValueError("the answer is no line")
        if time.monotonic() > deadline_s:
            raise TimeoutError("the answer takes too long")
    return line


def drain(sock: Stream, timeout_s: float) -> None:
    """Take what still comes, so that closing does not destroy an answer that is on its way; bounded."""
    deadline_s, buffer = time.monotonic() + timeout_s, bytearray(CHUNK_BYTES)
    try:
        while (left_s := deadline_s - time.monotonic()) > 0:
            sock.settimeout(left_s)
            if not sock.recv_into(buffer):
                return
    except OSError:
        return
