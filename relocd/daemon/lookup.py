"""Names of peers: reverse lookup, confirmed forward, never in the reactor's way."""

from __future__ import annotations

import socket
from ipaddress import ip_address

from twisted.internet.defer import Deferred, TimeoutError  # noqa: A004 - Twisted's own, raised by addTimeout
from twisted.internet.interfaces import IReactorFromThreads, IReactorTime
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool

#: Lookups at once. A resolver that hangs holds these threads and no others.
MAX_THREADS = 4


class Resolver:
    """Finds the confirmed names of an address, in threads of its own with a time limit."""

    def __init__(self, reactor: IReactorTime, timeout_s: float) -> None:
        self._reactor = reactor
        self._timeout_s = timeout_s
        self._pool = ThreadPool(0, MAX_THREADS, name="lookup")

    def start(self) -> None:
        self._pool.start()

    def stop(self) -> None:
        """Stop taking work. Threads that hang in the system's resolver are left behind, as daemon threads."""
        for thread in self._pool.threads:
            thread.daemon = True
        self._pool.started = False

    async def confirmed_names(self, address: str) -> tuple[str, ...]:
        """Names that the address has by reverse lookup *and* that lead back to it; empty on failure or timeout."""
        assert IReactorFromThreads.providedBy(self._reactor)
        lookup: Deferred[tuple[str, ...]] = deferToThreadPool(
            self._reactor, self._pool, confirmed_names, address
        )
        lookup.addTimeout(self._timeout_s, self._reactor)
        try:
            return await lookup
        except (TimeoutError, OSError):
            return ()


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
