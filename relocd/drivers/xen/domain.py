"""One domain of this host as the driver knows it. Reactor thread only."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from uuid import UUID

from attrs import evolve
from twisted.internet.defer import DeferredLock

from relocd.drivers.qemu.lifecycle import ENDED_AS, Cause
from relocd.drivers.qemu.store import Role
from relocd.drivers.xen.console import Console
from relocd.drivers.xen.keeping import Keeping
from relocd.drivers.xen.listing import Seen
from relocd.drivers.xen.store import Record
from relocd.drivers.xen.xlconfig import INCOMING_SUFFIX
from relocd.model import DomainConfig, DomainState, DomainStatus
from relocd.preflight.rules import needed_mib

Save = Callable[[Record], Awaitable[None]]


class Domain:
    """``seen`` is what Xen last said of it, None while Xen has none. ``keeping`` is the keeper of its relocation.

    ``doomed`` is set once we end it, ``removed`` once nothing may be written down of it any more. While ``busy``
    something is being done to it: what xl shows meanwhile is no news, and ``touched`` tells which of its lists is.
    ``settled`` is the end of its guest that has been seen to.
    """

    def __init__(self, record: Record, directory: Path, save: Save) -> None:
        self.record = record
        self.directory = directory
        self.seen: Seen | None = None
        self.keeping: Keeping | None = None
        self.console: Console | None = None
        self.doomed = self.removed = False
        self.busy = 0
        self.touched = 0
        self.still = False
        self.settled: Cause | None = None
        self.cancelling = DeferredLock()
        self._save = save

    @property
    def uuid(self) -> UUID:
        return self.record.uuid

    @property
    def config(self) -> DomainConfig:
        return self.record.config

    @property
    def role(self) -> Role:
        return self.record.role

    @property
    def domid(self) -> str:
        """Xen's number of it, as xl takes it."""
        return str(self.record.domid)

    @property
    def first_name(self) -> str:
        """What it is called in Xen when it has just been built."""
        return self.config.name + (INCOMING_SUFFIX if self.role is Role.INCOMING else "")

    @property
    def stands_still(self) -> bool:
        """Neither the guest nor a keeper's xl will let it run."""
        told = self.keeping is not None and bool(self.keeping.said("suspended", "held"))
        return self.still or told or (self.seen is not None and (self.seen.paused or self.seen.suspended))

    @property
    def state(self) -> DomainState:
        """As ``relocctl list`` shows it."""
        if self.role is Role.INCOMING:
            return DomainState.INCOMING
        if self.role is Role.OUTGOING:
            return DomainState.OUTGOING if self.stands_still else DomainState.RUNNING
        if self.seen is not None and self.seen.ending is not None:
            return ENDED_AS[self.seen.ending]
        return DomainState.PAUSED if self.stands_still else DomainState.RUNNING

    def status(self) -> DomainStatus:
        """A snapshot for lists. What a domain of Xen takes, its overhead too, is taken from the start."""
        return DomainStatus(
            config=self.config,
            id=self.record.id,
            state=self.state,
            cpu_time_s=self.seen.cpu_time_s if self.seen else 0.0,
            resident_mib=needed_mib(self.config) if self.seen else 0,
        )

    async def assign(self, role: Role, *, was_paused: bool = False, domid: int | None = None) -> None:
        """Write down whose the domain is from now on, and its number if it is another one."""
        number = self.record.domid if domid is None else domid
        self.record = evolve(self.record, role=role, was_paused=was_paused, domid=number)
        if not self.removed:
            await self._save(self.record)

    async def number(self, domid: int) -> None:
        """Write down its number in Xen."""
        self.record = evolve(self.record, domid=domid)
        if not self.removed:
            await self._save(self.record)

    @contextlib.contextmanager
    def asked(self) -> Iterator[None]:
        """What changes inside the block was asked for, so nobody has to be told."""
        self.busy += 1
        try:
            yield
        finally:
            self.busy -= 1

    def let_go(self) -> None:
        """Stop watching; the domain goes on."""
        if self.keeping is not None:
            self.keeping.let_go()
        if self.console is not None:
            self.console.close()
            self.console = None
