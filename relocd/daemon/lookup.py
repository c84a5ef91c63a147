"""Names of peers: reverse lookup, confirmed forward, never in the reactor's way."""

from __future__ import annotations

import socket
import threading
from ipaddress import ip_address
from typing import Any

from twisted.internet.defer import Deferred, TimeoutError  # noqa: A004 - Twisted's own, raised by addTimeout

#: Lookups at once. When the resolver hangs for so many peers, further ones have no names until it recovers.
MAX_LOOKUPS = 16


class Resolver:
    """Finds the confirmed names of an address, in threads of its own with a time limit.

    The threads are daemon threads: one that hangs in the system's resolver does not keep relocd from stopping.
    """

    def __init__(self, reactor: Any, timeout_s: float) -> None:
        self._reactor = reactor
        self._timeout_s = timeout_s
        self._running = 0

    async def confirmed_names(self, address: str) -> tuple[str, ...]:
        """Names that the address has by reverse lookup *and* that lead back to it; empty on failure or timeout."""
        if self._running >= MAX_LOOKUPS:
            return ()
        self._running += 1
        answer: Deferred[tuple[str, ...]] = Deferred()
        threading.Thread(target=self._look_up, args=(address, answer), name="lookup", daemon=True).start()
        try:
            return await answer.addTimeout(self._timeout_s, self._reactor)
        except TimeoutError:
            return ()

    def _look_up(self, address: str, answer: Deferred[tuple[str, ...]]) -> None:
        names = confirmed_names(address)
        self._reactor.callFromThread(self._deliver, answer, names)

    def _deliver(self, answer: Deferred[tuple[str, ...]], names: tuple[str, ...]) -> None:
        self._running -= 1
        if not answer.called:
            answer.callback(names)


def confirmed_names(address: str) -> tuple[str, ...]:
    """Blocking: the names of ``address`` that are confirmed by a forward lookup."""
    try:
        name, aliases, _ = socket.gethostbyaddr(address)
    except OSError:
        return ()
    return tuple(candidate for candidate in dict.fromkeys([name, *aliases]) if _leads_to(candidate, address))


def _leads_to(name: str, address: str) -> bool:
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except OSError:
        return False
    wanted = ip_address(address)
    return any(ip_address(str(sockaddr[0]).partition("%")[0]) == wanted for *_, sockaddr in found)
