"""A domain on its way in: the contract's Incoming on QEMU.

QEMU is started with ``-S``, so that it stays paused with everything loaded, and with its taps down. Up to ``cont``
it has neither run an instruction nor taken its disks.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Awaitable, Callable, Sequence

from twisted.logger import Logger

from relocd.drivers.base import GuestMemory
from relocd.drivers.qemu import migration, streams
from relocd.drivers.qemu.domain import Domain
from relocd.drivers.qemu.memory import guest_memory
from relocd.drivers.qemu.plant import Plant
from relocd.drivers.qemu.process import DYING_S
from relocd.drivers.qemu.qmp import CommandRefused, MonitorLost
from relocd.drivers.qemu.store import Role
from relocd.errors import BadState, DriverError
from relocd.model import DomainConfig, DomainState

_STREAM = "relocd-in"


class QemuIncoming:
    """See :class:`relocd.drivers.base.Incoming`.

    ``find`` returns the domain as long as it is here, ``build`` starts its QEMU, ``destroy`` removes everything. With
    ``direct_placement`` others may write the guest's memory.
    """

    log = Logger()

    def __init__(
        self,
        config: DomainConfig,
        plant: Plant,
        find: Callable[[], Domain | None],
        build: Callable[[DomainConfig, Role, tuple[str, ...]], Awaitable[Domain]],
        destroy: Callable[[Domain], Awaitable[None]],
        *,
        direct_placement: bool,
    ) -> None:
        self._config = config
        self._plant = plant
        self._find = find
        self._build = build
        self._destroy = destroy
        self._direct_placement = direct_placement
        self._memory: GuestMemory | None = None
        self._channels: list[socket.socket] = []

    async def prepare(self, disk_roots: tuple[str, ...] = ("/",), channels: int = 0) -> socket.socket:
        domain = await self._build(self._config, Role.INCOMING, disk_roots)
        try:
            await self._plant.check_opened(domain, disk_roots)
            await migration.prepare(domain.monitor, migration.TARGET_CAPABILITIES, channels)
            if self._direct_placement and not channels:
                self._memory = await self._open_memory(domain)
            main, *self._channels = await self._listen(domain, channels)
        except BaseException:
            await self.discard()
            raise
        return main

    async def _listen(self, domain: Domain, channels: int) -> list[socket.socket]:
        if channels:
            run_dir = self._plant.run_dir(domain.uuid)
            return await streams.receive_over(domain.monitor, run_dir, 1 + channels)
        stream = await streams.attach(domain.monitor, _STREAM)
        try:
            await domain.monitor.execute("migrate-incoming", {"uri": f"fd:{_STREAM}"})
        except BaseException:
            stream.close()
            raise
        return [stream]

    def channels(self) -> Sequence[socket.socket]:
        channels, self._channels = self._channels, []
        return channels

    def memory(self) -> GuestMemory | None:
        memory, self._memory = self._memory, None
        return memory

    async def loaded(self) -> None:
        domain = self._domain()
        if domain.migration.status in migration.IDLE:
            raise DriverError(f"domain '{self._config.name}' was never sent")
        try:
            status = await domain.migration.until("completed")
        except MonitorLost as error:
            raise await self._not_loaded(domain) from error
        if status != "completed":
            raise await self._not_loaded(domain)
        # The source's QEMU gives up its locks before it sends the last byte; later than now nothing could be undone.
        await self._plant.wait_disks(domain)

    async def resume(self, *, paused: bool) -> None:
        self._close_unasked()
        domain = self._domain()
        if domain.role is Role.OUTGOING:
            raise BadState(f"Domain '{self._config.name}' is on its way out already.")
        if domain.role is Role.INCOMING and domain.migration.status != "completed":
            raise BadState(f"Domain '{self._config.name}' is not loaded.")
        await self._plant.network.connect(domain.config)
        if paused:
            await self._plant.activate_disks(domain)
        else:
            await self._run(domain)
            with contextlib.suppress(
                MonitorLost
            ):  # it ran here; that it has ended since is told by the driver
                await domain.announce()
        # Written last, so that the guest does not wait for a disk; whoever reads an old record sees the guest run.
        await domain.assign(Role.OWN)

    async def discard(self) -> None:
        self._close_unasked()
        domain = self._find()
        if domain is None:
            await self._plant.remove_logs(self._config.uuid)
            return
        if domain.role is not Role.INCOMING:
            raise BadState(f"Domain '{self._config.name}' is this host's own and is not discarded.")
        await self._destroy(domain)

    def _close_unasked(self) -> None:
        """Let go of what nobody asked for."""
        memory = self.memory()
        if memory is not None:
            os.close(memory.descriptor)
        for channel in self.channels():
            channel.close()

    async def _open_memory(self, domain: Domain) -> GuestMemory | None:
        try:
            return await guest_memory(domain)
        except DriverError as error:
            self.log.warn(
                "domain {name}: its hypervisor loads its pages, which is slower: {error}",
                name=self._config.name,
                error=error,
            )
            return None

    def _domain(self) -> Domain:
        domain = self._find()
        if domain is None:
            raise DriverError(f"domain '{self._config.name}' is not being received here")
        return domain

    async def _not_loaded(self, domain: Domain) -> DriverError:
        """QEMU ends itself when a stream cannot be loaded; its reason is in its log then."""
        await domain.process.ended.wait(DYING_S)
        reason = self._plant.complaint(domain.uuid) or "QEMU gave no reason"
        return DriverError(f"domain '{self._config.name}' could not be loaded: {reason}")

    async def _run(self, domain: Domain) -> None:
        try:
            await domain.cont()
        except CommandRefused:
            await domain.refresh()
            if domain.guest not in (DomainState.SHUTDOWN, DomainState.CRASHED):
                await self._plant.check_disks(domain)
                raise  # else it had ended before it left, and arrived as it was
