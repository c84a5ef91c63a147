"""Names of peers: reverse lookup, confirmed forward, never in the reactor's way."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any, TypeVar

from attrs import frozen
from twisted.internet.defer import Deferred, TimeoutError  # noqa: A004 - Twisted's own, raised by addTimeout

_T = TypeVar("_T")

#: Lookups at once. When the resolver hangs for so many peers, further ones have no names until it recovers.
MAX_LOOKUPS = 16


#: Names of one address that are looked at. The peer's name server decides how many there are.
MAX_NAMES = 8


class Resolver:
    """Finds the confirmed names of an address, in threads of its own with a time limit.

    The threads are daemon threads: one that hangs in the system's resolver does not keep relocd from stopping.
    """

    def __init__(self, reactor: Any, timeout_s: float) -> None:
        self._reactor = reactor
        self._timeout_s = timeout_s
        self._running = 0
        self._asked: dict[str, list[Deferred[tuple[str, ...]]]] = {}

    async def confirmed_names(self, address: str) -> tuple[str, ...]:
        """Names that the address has by reverse lookup *and* that lead back to it; empty on failure or timeout.

        An address that connects often is looked up once at a time, so it does not use up the lookups.
        """
        if address in self._asked:
            answer: Deferred[tuple[str, ...]] = Deferred()
            self._asked[address].append(answer)
            return await answer
        self._asked[address] = []
        names: tuple[str, ...] = ()
        try:
            names = await self._in_thread(confirmed_names, address) or ()
        finally:
            for waiting in self._asked.pop(address):
                waiting.callback(names)
        return names

    async def reverse_names(self, address: str) -> tuple[ReverseName, ...] | None:
        """Every name of the address, confirmed or not; None if that was not found out in time."""
        return await self._in_thread(reverse_names, address)

    async def addresses(self, name: str) -> tuple[str, ...] | None:
        """The addresses of a name, none if it has none; None if that was not found out in time."""
        return await self._in_thread(addresses_of, name)

    async def _in_thread(self, look_up: Callable[[str], _T], subject: str) -> _T | None:
        if self._running >= MAX_LOOKUPS:
            return None
        self._running += 1
        answer: Deferred[_T | None] = Deferred()
        arguments = (look_up, subject, answer)
        threading.Thread(target=self._look_up, args=arguments, name="lookup", daemon=True).start()
        try:
            return await answer.addTimeout(self._timeout_s, self._reactor)
        except TimeoutError:
            return None

    def _look_up(self, look_up: Callable[[str], _T], subject: str, answer: Deferred[_T | None]) -> None:
        found = None
        try:
            found = look_up(subject)
        finally:
            self._reactor.callFromThread(self._deliver, answer, found)

    def _deliver(self, answer: Deferred[_T | None], found: _T | None) -> None:
        self._running -= 1
        if not answer.called:
            answer.callback(found)


@frozen
class ReverseName:
    """A name that an address has by reverse lookup, and the addresses that the name leads to."""

    name: str
    leads_to: tuple[str, ...]
    confirmed: bool


def confirmed_names(address: str) -> tuple[str, ...]:
    """Blocking: the names of ``address`` that are confirmed by a forward lookup."""
    return tuple(found.name for found in reverse_names(address) if found.confirmed)


def reverse_names(address: str) -> tuple[ReverseName, ...]:
    """Blocking: the names of ``address``, each with what a forward lookup says of it."""
    try:
        name, aliases, _ = socket.gethostbyaddr(address)
    except (OSError, UnicodeError):
        return ()
    return tuple(
        _forward(candidate, address) for candidate in list(dict.fromkeys([name, *aliases]))[:MAX_NAMES]
    )


def _forward(name: str, address: str) -> ReverseName:
    found = addresses_of(name)
    wanted = ip_address(address.partition("%")[0])
    return ReverseName(name, found, any(ip_address(text.partition("%")[0]) == wanted for text in found))


def addresses_of(name: str) -> tuple[str, ...]:
    """Blocking: the addresses of a name, or the address itself if it is one."""
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return ()
    return tuple(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))
