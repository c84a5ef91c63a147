"""A domain on its way in: the contract's Incoming on Xen.

``xl restore -p`` builds it by a configuration of this host's own, loads it, and leaves it paused: it has run no
instruction by then. The stream's own configuration, which a peer wrote, is not used.
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, Sequence

from twisted.logger import Logger

from relocd.drivers.base import GuestMemory
from relocd.drivers.qemu.store import Role
from relocd.drivers.xen.disks import check_disks
from relocd.drivers.xen.domain import Domain
from relocd.drivers.xen.keeping import FINAL, Keeping
from relocd.drivers.xen.outgoing import Register
from relocd.drivers.xen.plant import Plant
from relocd.drivers.xen.xlconfig import INCOMING_SUFFIX
from relocd.errors import BadState, DriverError
from relocd.model import DomainConfig


class XenIncoming:
    """See :class:`relocd.drivers.base.Incoming`. ``enter`` puts a new domain in the driver's list."""

    log = Logger()

    def __init__(
        self,
        config: DomainConfig,
        plant: Plant,
        register: Register,
        enter: Callable[[DomainConfig, Role], Awaitable[Domain]],
        adopt: Callable[[Domain], Awaitable[None]],
    ) -> None:
        self._config = config
        self._plant = plant
        self._register = register
        self._enter = enter
        self._adopt = adopt

    async def prepare(self, disk_roots: tuple[str, ...] = ("/",), channels: int = 0) -> socket.socket:
        await self._plant.worker.run(check_disks, self._config.disks, disk_roots)
        domain = await self._enter(self._config, Role.INCOMING)
        try:
            path = await self._plant.write_config(domain.record, self._config.name + INCOMING_SUFFIX)
            domain.keeping, stream = await Keeping.start(
                self._plant.worker,
                domain.directory,
                "arrive",
                str(path),
                log=self._plant.xl_log(domain.uuid),
                unit=f"relocd-keeper-{domain.uuid}-{domain.record.id}",
            )
        except BaseException:
            await self.discard()
            raise
        return stream

    def memory(self) -> GuestMemory | None:
        """None: a domain's memory is Xen's to fill."""
        return None

    def channels(self) -> Sequence[socket.socket]:
        return ()

    async def loaded(self) -> None:
        domain = self._domain()
        name = self._config.name
        if domain.keeping is None:
            raise DriverError(f"domain '{name}' was never sent")
        await domain.keeping.until("loaded", "failed")
        if domain.keeping is None or not domain.keeping.said("loaded"):
            why = self._plant.complaint(domain.uuid) or "xl gave no reason"
            raise DriverError(f"domain '{name}' could not be loaded: {why}")
        with domain.asked():
            await self._adopt(domain)
        if domain.seen is None:
            raise DriverError(f"domain '{name}' could not be loaded: Xen knows of none")

    async def resume(self, *, paused: bool) -> None:
        domain = self._domain()
        name, xl = self._config.name, self._plant.xl
        if domain.role is Role.OUTGOING:
            raise BadState(f"Domain '{name}' is on its way out already.")
        if domain.role is Role.INCOMING and not (domain.keeping and domain.keeping.said("loaded")):
            raise BadState(f"Domain '{name}' is not loaded.")
        with domain.asked():
            if domain.seen is None:
                await self._adopt(domain)
            if domain.seen is None:
                raise DriverError(f"domain '{name}' is not being received here")
            if not paused and domain.seen.paused:
                await xl.run("unpause", domain.domid)
            if domain.seen.name != name:
                await self._rename(domain)
            # Written last, so that the guest does not wait for a disk; whoever reads an old record sees it run.
            await domain.assign(Role.OWN)
            domain.keeping = None
            await self._register.refresh()

    async def _rename(self, domain: Domain) -> None:
        """A name that somebody has taken meanwhile does not keep a guest from running."""
        try:
            await self._plant.xl.run("rename", domain.domid, self._config.name)
        except DriverError as error:
            self.log.warn(
                "domain {name} keeps the name it came by: {error}", name=self._config.name, error=error
            )

    async def discard(self) -> None:
        domain = self._register.find()
        if domain is None:
            await self._plant.remove(self._config.uuid, logs_too=True)
            return
        if domain.role is not Role.INCOMING:
            raise BadState(f"Domain '{self._config.name}' is this host's own and is not discarded.")
        domain.doomed = True
        if domain.keeping is not None:
            domain.keeping.command("cancel")
            await domain.keeping.until(*FINAL)
        await self._adopt(domain)
        await self._register.destroy(domain)

    def _domain(self) -> Domain:
        domain = self._register.find()
        if domain is None:
            raise DriverError(f"domain '{self._config.name}' is not being received here")
        return domain
