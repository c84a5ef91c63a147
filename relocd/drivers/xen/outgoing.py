"""A domain on its way out: the contract's Outgoing on Xen.

What this rests on (tools/xl/xl_migrate.c, xl_saverestore.c): ``xl migrate`` resumes the domain by itself if its
connection is lost, until it has said that the target may begin; from then on it waits for the target's report, and
does what that says. ``xl save -p`` leaves the domain paused, and able to go on, once all of it is written; before
that it resumes it. See docs/xen.md for both beside relocd's own states.
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, Sequence

from attrs import frozen
from twisted.internet.defer import Deferred

from relocd.drivers.qemu.store import Role
from relocd.drivers.xen.domain import Domain
from relocd.drivers.xen.keeping import FINAL, Keeping
from relocd.drivers.xen.plant import Plant
from relocd.drivers.xen.xlconfig import LEAVING_SUFFIX, PV
from relocd.errors import BadState, DriverError
from relocd.model import DomainState, Progress

_PAGE_BYTES = 4096


@frozen
class Register:
    """What a relocation needs of the driver: to find its domain, look at it anew, destroy it, and settle what is to
    become of a guest that has ended."""

    find: Callable[[], Domain | None]
    refresh: Callable[[], Awaitable[None]]
    destroy: Callable[[Domain], Awaitable[None]]
    settle: Callable[[Domain], Awaitable[None]]


class XenOutgoing:
    """See :class:`relocd.drivers.base.Outgoing`. ``logs_dirty_pv``: Xen can move PV domains live."""

    steerable = False

    def __init__(self, plant: Plant, register: Register, *, logs_dirty_pv: bool) -> None:
        self._plant = plant
        self._register = register
        self._logs_dirty_pv = logs_dirty_pv

    @property
    def was_paused(self) -> bool:
        domain = self._register.find()
        if domain is None:
            return False
        if domain.role is Role.OUTGOING:
            return domain.record.was_paused
        return domain.state is DomainState.PAUSED

    @property
    def channels_max(self) -> int:
        return 0

    def channels(self) -> Sequence[socket.socket]:
        return ()

    async def start(
        self, *, live: bool, downtime_limit_ms: int, may_throttle: bool = False, channels: int = 0
    ) -> socket.socket:
        domain = self._domain()
        if domain.role is not Role.OWN or domain.state not in (DomainState.RUNNING, DomainState.PAUSED):
            raise BadState(f"Domain '{domain.config.name}' is {domain.state} and cannot be relocated.")
        self.require(live=live)
        was_paused = self.was_paused
        with domain.asked():
            await domain.assign(Role.OUTGOING, was_paused=was_paused)
            try:
                return await self._begin(domain, live and not was_paused)
            except BaseException:
                await self.cancel()
                raise

    def require(self, *, live: bool) -> None:
        domain = self._domain()
        if live and not self.was_paused and domain.config.machine == PV and not self._logs_dirty_pv:
            raise DriverError(
                f"domain '{domain.config.name}' is a PV domain, and this Xen cannot follow what such a guest writes: "
                "it is built without shadow paging",
                hint='Relocate it without --live, or run it with machine = "pvh".',
            )

    async def _begin(self, domain: Domain, live: bool) -> socket.socket:
        name = domain.config.name
        if not live:  # live, xl does it, and undoes it, by itself
            domain.still = True
            await self._plant.xl.run("rename", domain.domid, name + LEAVING_SUFFIX)
        domain.keeping, stream = await Keeping.start(
            self._plant.worker,
            domain.directory,
            "live" if live else "still",
            domain.domid,
            log=self._plant.xl_log(domain.uuid),
            unit=f"relocd-keeper-{domain.uuid}-{domain.record.id}",
            was_paused=domain.record.was_paused,
        )
        return stream

    async def adjust(self, *, downtime_limit_ms: int, throttle_percent: int = 0) -> None:
        """Nothing: xl decides by itself when to suspend the guest (after five rounds, or 50 pages), and how fast the
        guest may be."""
        self._domain()

    async def progress(self) -> Progress:
        domain = self._domain()
        keeping = domain.keeping
        if keeping is None:
            raise DriverError("the domain is not being sent")
        total_bytes = domain.config.memory_mib << 20
        done = keeping.said("held", "suspended") != ""
        left = 0 if done else max(total_bytes - keeping.stream_bytes, _PAGE_BYTES)
        return Progress(round=max(keeping.round, int(done)), total_bytes=total_bytes, remaining_bytes=left)

    async def paused(self) -> None:
        await self._until("suspended")

    async def switch_over(self) -> None:
        domain = self._domain()
        if domain.keeping is not None:
            domain.keeping.command("switch-over")

    async def finished(self) -> None:
        await self._until("held")

    async def cancel(self) -> None:
        domain = self._register.find()
        if domain is not None:
            found = domain
            # Whoever waits for the stream cancels too when it breaks off.
            await domain.cancelling.run(lambda: Deferred.fromCoroutine(self._cancel(found)))

    async def _cancel(self, domain: Domain) -> None:
        if domain.role is not Role.OUTGOING:
            return
        with domain.asked():
            if domain.keeping is not None:
                domain.keeping.command("cancel")
                await domain.keeping.until(*FINAL)
            await self._register.refresh()
            if domain.removed or domain.seen is None:
                return
            await self._restore(domain)
            domain.keeping, domain.still = None, False
            await domain.assign(Role.OWN)
            await self._register.refresh()
        if domain.seen is not None and domain.seen.ending is not None:
            await self._register.settle(domain)

    async def _restore(self, domain: Domain) -> None:
        seen, name, xl = domain.seen, domain.config.name, self._plant.xl
        if seen is None or seen.ending is not None:
            return
        if seen.suspended:
            raise DriverError(
                f"domain '{name}' stays suspended: the process that was to bring it back has been killed",
                hint=f"xl of this Xen cannot resume it. 'xl destroy {domain.domid}' ends it for good.",
            )
        if seen.name != name:
            await xl.run("rename", domain.domid, name)
        if domain.record.was_paused and not seen.paused:
            await xl.run("pause", domain.domid)
        elif seen.paused and not domain.record.was_paused:
            await xl.run("unpause", domain.domid)

    async def release(self) -> None:
        domain = self._register.find()
        if domain is None:
            return
        if domain.role is not Role.OUTGOING:
            raise BadState(f"Domain '{domain.config.name}' is not on its way out.")
        domain.doomed = True
        if domain.keeping is not None:
            domain.keeping.command("release")
            if domain.keeping.said("held"):
                await domain.keeping.until(*FINAL)
        await self._register.destroy(domain)

    async def _until(self, word: str) -> None:
        """Wait until the keeper has said it; if it ends otherwise, see that the domain is as it was and say why."""
        domain = self._domain()
        if domain.keeping is None:
            raise DriverError("the domain is not being sent")
        await domain.keeping.until(word, "held", "home", "failed")
        if domain.keeping is not None and domain.keeping.said(word, "held"):
            return
        raise await self._broken(domain)

    async def _broken(self, domain: Domain) -> DriverError:
        name, keeping = domain.config.name, domain.keeping
        why = "the process that keeps its xl was killed"
        if keeping is not None:
            why = next((keeping.words[word] for word in ("home", "failed") if word in keeping.words), why)
        complaint = self._plant.complaint(domain.uuid)
        await self._register.refresh()
        if domain.removed or domain.seen is None:
            return DriverError(f"domain '{name}' ended while it was being relocated: it was killed")
        if domain.seen.ending is not None:
            return DriverError(
                f"domain '{name}' ended while it was being relocated: {domain.seen.ending.value} of the guest"
            )
        await self.cancel()
        return DriverError(
            f"xl's stream of domain '{name}' broke off: {why}" + (f" ({complaint})" if complaint else "")
        )

    def _domain(self) -> Domain:
        domain = self._register.find()
        if domain is None:
            raise DriverError("the domain is gone")
        return domain
