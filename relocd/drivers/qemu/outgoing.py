"""A domain on its way out: the contract's Outgoing on QEMU.

QEMU facts this rests on: a migration that fails or is cancelled leaves the guest as it was, but for one that had
been halted; a source that has completed ("postmigrate") comes back with ``cont`` as long as the target never ran.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Sequence

from twisted.internet.defer import Deferred

from relocd.drivers.aio import awaited
from relocd.drivers.qemu import migration, streams
from relocd.drivers.qemu.domain import Domain
from relocd.drivers.qemu.plant import Plant
from relocd.drivers.qemu.process import DYING_S
from relocd.drivers.qemu.qmp import CommandRefused, MonitorLost
from relocd.drivers.qemu.store import Role
from relocd.errors import BadState, DriverError
from relocd.model import DomainState, Progress

_STREAM = "relocd-out"

#: Where the migration of a guest that stays paused ends; only ``cont`` leads out of it.
_POSTMIGRATE = "postmigrate"
#: Where it is until then. QEMU tells the migration's end before it leaves this state, and has no event for that.
_FINISHING = "finish-migrate"
_POLL_S = 0.005
_FINISHING_TIMEOUT_S = 10.0


class QemuOutgoing:
    """See :class:`relocd.drivers.base.Outgoing`.

    ``find`` returns the domain as long as it is here, ``destroy`` ends it, ``settle`` does what is to become of one
    whose guest has ended by itself.
    """

    steerable = True

    def __init__(
        self,
        plant: Plant,
        find: Callable[[], Domain | None],
        destroy: Callable[[Domain], Awaitable[None]],
        settle: Callable[[Domain], Awaitable[None]],
        channels_max: int = 0,
    ) -> None:
        self._plant = plant
        self._find = find
        self._destroy = destroy
        self._settle = settle
        self._channels_max = channels_max
        self._channels: list[socket.socket] = []

    @property
    def was_paused(self) -> bool:
        domain = self._find()
        if domain is None:
            return False
        if domain.role is Role.OUTGOING:
            return domain.record.was_paused
        return domain.guest is DomainState.PAUSED

    def require(self, *, live: bool) -> None:
        """Everything can leave."""

    @property
    def channels_max(self) -> int:
        domain = self._find()
        if domain is None:
            return 0
        reachable = streams.reachable(domain.process.identity.pid, self._plant.run_dir(domain.uuid))
        return self._channels_max if reachable else 0

    async def start(
        self, *, live: bool, downtime_limit_ms: int, may_throttle: bool = False, channels: int = 0
    ) -> socket.socket:
        domain = self._domain()
        if domain.role is not Role.OWN or domain.guest not in (DomainState.RUNNING, DomainState.PAUSED):
            raise BadState(f"Domain '{domain.config.name}' is {domain.state} and cannot be relocated.")
        await domain.assign(Role.OUTGOING, was_paused=self.was_paused)
        try:
            main, *self._channels = await self._begin(domain, live, downtime_limit_ms, may_throttle, channels)
        except BaseException:
            await self.cancel()
            raise
        return main

    def channels(self) -> Sequence[socket.socket]:
        channels, self._channels = self._channels, []
        return channels

    async def adjust(self, *, downtime_limit_ms: int, throttle_percent: int = 0) -> None:
        domain = self._domain()
        if domain.migration.status not in migration.FINAL:
            parameters = migration.steering(downtime_limit_ms, throttle_percent)
            await domain.monitor.execute("migrate-set-parameters", parameters)

    async def progress(self) -> Progress:
        answer = await self._domain().monitor.execute("query-migrate")
        memory = answer.get("ram", {})
        return Progress(
            round=self._domain().migration.round,
            total_bytes=memory.get("total", 0),
            remaining_bytes=memory.get("remaining", 0),
            round_bytes=self._domain().migration.round_bytes,
            dirty_rate_bytes_s=memory.get("dirty-pages-rate", 0) * memory.get("page-size", 4096),
            downtime_ms=answer.get("downtime"),
        )

    async def paused(self) -> None:
        await self._reach("pre-switchover")

    async def switch_over(self) -> None:
        domain = self._domain()
        try:
            await domain.monitor.execute("migrate-continue", {"state": "pre-switchover"})
        except MonitorLost as error:
            raise await self._explained(domain, error) from None

    async def finished(self) -> None:
        await self._reach("completed")

    async def cancel(self) -> None:
        domain = self._find()
        if domain is not None:
            found = domain
            # Whoever waits for the migration cancels too when it breaks off.
            await domain.cancelling.run(lambda: Deferred.fromCoroutine(self._cancel(found)))

    async def _cancel(self, domain: Domain) -> None:
        if domain.role is not Role.OUTGOING:
            return
        await self._plant.drain(domain)
        try:
            await self._undo(domain)
        except MonitorLost:
            if not await domain.process.ended.wait(DYING_S):
                raise

    async def _undo(self, domain: Domain) -> None:
        if domain.migration.status not in migration.FINAL | migration.IDLE:
            await self._stop_migration(domain)
        await self._restore(domain)
        ended = domain.ending is not None
        await domain.assign(Role.OWN)
        if ended:
            await self._settle(domain)

    async def release(self) -> None:
        domain = self._find()
        if domain is None:
            return
        if domain.role is not Role.OUTGOING:
            raise BadState(f"Domain '{domain.config.name}' is not on its way out.")
        await self._destroy(domain)

    def _domain(self) -> Domain:
        domain = self._find()
        if domain is None:
            raise DriverError("the domain is gone")
        return domain

    async def _begin(
        self, domain: Domain, live: bool, downtime_limit_ms: int, may_throttle: bool, channels: int
    ) -> list[socket.socket]:
        monitor = domain.monitor
        if domain.record.was_paused and await domain.run_state() == _POSTMIGRATE:
            await _unstick(domain)
        domain.migration.forget()
        # The cap on the link is the carrier's: QEMU's own (128 MiB/s by default) would only slow it down.
        parameters = {"max-bandwidth": 0} | migration.steering(downtime_limit_ms, 0)
        switches = {migration.AUTO_CONVERGE: may_throttle}
        await migration.prepare(monitor, migration.SOURCE_CAPABILITIES, channels, parameters, switches)
        if not live and domain.guest is DomainState.RUNNING:
            await domain.stop()
        if channels:
            return await streams.send_over(monitor, self._plant.run_dir(domain.uuid), 1 + channels)
        stream = await streams.attach(monitor, _STREAM)
        try:
            await monitor.execute("migrate", {"uri": f"fd:{_STREAM}"})
        except BaseException:
            stream.close()
            raise
        return [stream]

    async def _reach(self, status: str) -> None:
        """Wait for a state of the migration; if it ends in another one, bring the guest back and say why.

        A guest that has ended is not worth waiting for, and there is nothing to bring back.
        """
        domain = self._domain()
        try:
            reached = domain.migration.status if domain.ending else await domain.migration.until(status)
        except MonitorLost as error:
            raise await self._explained(domain, error) from None
        if domain.ending:
            raise self._obituary(domain)
        if reached != status:
            reason = await domain.migration.error() or f"it is {reached}"
            await self.cancel()
            raise DriverError(f"QEMU's stream of domain '{domain.config.name}' broke off: {reason}")

    async def _explained(self, domain: Domain, lost: MonitorLost) -> DriverError:
        """Why QEMU does not answer: as a rule because it has ended, which takes it a moment."""
        return self._obituary(domain) if await domain.process.ended.wait(DYING_S) else lost

    def _obituary(self, domain: Domain) -> DriverError:
        name, cause = domain.config.name, self._plant.epitaph(domain)
        return DriverError(f"domain '{name}' ended while it was being relocated: {cause}")

    async def _stop_migration(self, domain: Domain) -> None:
        await domain.monitor.execute("migrate_cancel")
        # QEMU 7.2 can miss a cancel that comes while it enters "pre-switchover" and waits there for ever, the guest
        # paused. This wakes it up then; in any other state it is refused or has no effect.
        with contextlib.suppress(CommandRefused):
            await domain.monitor.execute("migrate-continue", {"state": "cancelling"})
        await domain.migration.until(*migration.FINAL)

    async def _restore(self, domain: Domain) -> None:
        run_state = await _settled(domain)
        if not domain.record.was_paused:
            if domain.guest is DomainState.PAUSED:
                await self._run(domain)
        elif run_state == _POSTMIGRATE:
            await self._plant.activate_disks(domain)

    async def _run(self, domain: Domain) -> None:
        try:
            await domain.cont()
        except CommandRefused:
            await self._plant.check_disks(domain)
            raise


async def _settled(domain: Domain) -> str:
    """The run state after a migration that has just ended, once QEMU is done with it."""
    attempts = round(_FINISHING_TIMEOUT_S / _POLL_S)
    for _ in range(attempts):
        run_state = await domain.run_state()
        if run_state != _FINISHING:
            return run_state
        await awaited(asyncio.sleep(_POLL_S))
    raise DriverError(f"QEMU of domain '{domain.config.name}' does not end its migration")


async def _unstick(domain: Domain) -> None:
    """Lead a paused guest out of "postmigrate", from where QEMU refuses to migrate.

    The guest runs for the moment between the two commands; QEMU knows no other way.
    """
    await domain.cont()
    await domain.stop()
