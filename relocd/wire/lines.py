"""Cut a byte stream into lines, with a limit, before anything is parsed."""

from __future__ import annotations

from relocd.errors import ProtocolError

#: Longest message in bytes, newline not counted. A proposal with 16 disks and 8 interfaces is below 8 KiB.
MAX_LINE_BYTES = 64 * 1024


class LineCutter:
    """Feed bytes, get complete lines (without their end, CRLF accepted). Holds at most one unfinished line.

    Raises ProtocolError as soon as an unfinished line exceeds the limit, so a peer cannot make it grow.
    """

    def __init__(self, limit_bytes: int = MAX_LINE_BYTES) -> None:
        self._limit = limit_bytes
        self._rest = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """Return the lines that ``data`` completes."""
        self._rest += data
        *lines, rest = self._rest.split(b"\n")
        self._rest = bytearray(rest)
        if len(rest) > self._limit or any(len(line) > self._limit for line in lines):
            raise ProtocolError(f"a message is longer than {self._limit} bytes")
        return [bytes(line).rstrip(b"\r") for line in lines]

    @property
    def pending(self) -> int:
        """Bytes of the unfinished line."""
        return len(self._rest)
