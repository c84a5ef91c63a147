"""Looks at all domains of Xen (``xl list -v``), and tells which of ours have changed without being asked.

A list is old by the time it is read: it says nothing of a domain to which something was done since it was asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from uuid import UUID

from twisted.internet.defer import DeferredLock
from twisted.logger import Logger

from relocd.drivers.aio import background
from relocd.drivers.xen.domain import Domain
from relocd.drivers.xen.listing import Seen, parse_list
from relocd.drivers.xen.xl import Xl
from relocd.errors import DriverError
from relocd.model import DomainState


class Census:
    """``domains`` are those of the driver; ``on_change`` hears of each that changed, with its state before."""

    log = Logger()

    def __init__(
        self, xl: Xl, domains: Mapping[UUID, Domain], on_change: Callable[[Domain, DomainState], None]
    ) -> None:
        self._xl = xl
        self._domains = domains
        self._on_change = on_change
        self._lock = DeferredLock()
        self._asked = False
        self._stopped = False

    def soon(self) -> None:
        """Something happened in Xen: look, after the look that is under way."""
        if not self._asked and not self._stopped:
            self._asked = True
            background(self._look_once(), "looking at domains")

    def stop(self) -> None:
        """Look no more."""
        self._stopped = True

    async def take(self) -> None:
        """Look now. Raises DriverError if xl cannot."""
        await self._lock.acquire()
        try:
            if not self._stopped:
                await self._take()
        finally:
            self._lock.release()

    async def find(self, domain: Domain) -> None:
        """Look for one domain, by its number or, if that is not known yet, by its UUID and first name."""
        found = {seen.domid: seen for seen in await self._list() if seen.uuid == domain.uuid}
        seen = found.get(domain.record.domid)
        if not domain.record.domid:
            seen = next((each for each in found.values() if each.name == domain.first_name), None)
        domain.seen = seen
        domain.touched += 1
        if seen is not None and seen.domid != domain.record.domid:
            await domain.number(seen.domid)

    async def _look_once(self) -> None:
        await self._lock.acquire()
        self._asked = False  # what happens from now on takes another look
        try:
            if not self._stopped:
                await self._take()
        except DriverError as error:
            self.log.warn("cannot look at the domains of Xen: {error}", error=error)
        finally:
            self._lock.release()

    async def _take(self) -> None:
        before = {uuid: domain.touched for uuid, domain in self._domains.items()}
        listing = {seen.domid: seen for seen in await self._list()}
        for uuid, touched in before.items():
            domain = self._domains.get(uuid)
            if domain is not None and domain.touched == touched and domain.record.domid:
                self._compare(domain, listing.get(domain.record.domid))

    def _compare(self, domain: Domain, seen: Seen | None) -> None:
        before, was = domain.state, domain.seen
        domain.seen = seen if seen is not None and seen.uuid == domain.uuid else None
        changed = (domain.seen is None) is not (was is None) or domain.state is not before
        ended = domain.seen is not None and domain.seen.ending is not None
        if (changed or ended) and not domain.doomed and (not domain.busy or domain.seen is None):
            self._on_change(domain, before)

    async def _list(self) -> list[Seen]:
        return [seen for seen in parse_list(await self._xl.run("list", "-v")).values() if not seen.dying]
