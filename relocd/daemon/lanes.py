"""The lanes that a target waits for: how many, what each must show, and which are there."""

from __future__ import annotations

import hmac
import socket

from relocd.carrier.control import LaneSecurity
from relocd.tls.authority import new_lane_pair
from relocd.wire.tokens import lane_token


class ExpectedLanes:
    """Of one relocation. With ``their_certificate`` they will be encrypted; ``certificate`` is our half, in hex."""

    def __init__(self, token: str, count: int, their_certificate: bytes) -> None:
        self._token = token
        self._count = count
        self._here: dict[int, socket.socket] = {}
        self.certificate = ""
        self.security: LaneSecurity | None = None
        if their_certificate:
            pair = new_lane_pair()
            self.certificate = pair.der().hex()
            self.security = LaneSecurity(pair.certificate, pair.key, their_certificate.hex())

    def wants(self, number: int, token: str) -> bool:
        """Is a lane of this number still missing, and does it show the right token?"""
        expected = lane_token(self._token, number) if self.security else self._token
        known = hmac.compare_digest(token.encode(), expected.encode())
        return known and number < self._count and number not in self._here

    def take(self, number: int, sock: socket.socket) -> None:
        """A lane has connected."""
        self._here[number] = sock

    @property
    def complete(self) -> bool:
        """Are all there?"""
        return len(self._here) == self._count

    @property
    def sockets(self) -> list[socket.socket]:
        """Those that are there, in the order of their numbers."""
        return [self._here[number] for number in sorted(self._here)]

    def close(self) -> None:
        """Close this process's own descriptors of them."""
        for sock in self._here.values():
            sock.close()
