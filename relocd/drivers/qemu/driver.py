"""The contract's Driver on QEMU: the register of this host's domains and what can be done with each."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from uuid import UUID

from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from relocd.config import Config
from relocd.drivers.aio import awaited, background
from relocd.drivers.base import DomainChanged, DriverPaths
from relocd.drivers.qemu import cpu, lifecycle, load, logs
from relocd.drivers.qemu.account import user_for
from relocd.drivers.qemu.capabilities import DRIVER, Capabilities
from relocd.drivers.qemu.domain import Domain
from relocd.drivers.qemu.incoming import QemuIncoming
from relocd.drivers.qemu.locks import in_use
from relocd.drivers.qemu.outgoing import QemuOutgoing
from relocd.drivers.qemu.plant import Plant
from relocd.drivers.qemu.probe import probe
from relocd.drivers.qemu.store import Record, Role
from relocd.errors import BadState, DriverError, UnknownDomain
from relocd.host import bootstore
from relocd.model import Action, CpuWords, DomainConfig, DomainState, DomainStatus, HypervisorFacts, Load
from relocd.pages.stream_format import StreamFormat

_QUIT_GRACE_S = 5.0
"""QEMU writes its caches back before it ends; a guest that is destroyed does not get longer than this."""

_LAST_WORDS_S = 2.0
"""The end of the process is seen at once, what it said before only when it is read."""

_RECONNECT_FIRST_S, _RECONNECT_LAST_S = 0.5, 30.0
"""Pauses before a QEMU that does not answer is asked again: doubled from the first to the last."""

_LOG_CHECK_S = 5.0
_KIB = 1024

#: Ctrl-Alt-Del, the one way to ask a PC for a reboot that every system knows: ACPI has none.
_REBOOT_KEYS = [{"type": "qcode", "data": key} for key in ("ctrl", "alt", "delete")]


class QemuDriver:
    """See :class:`relocd.drivers.base.Driver`."""

    name = DRIVER
    stream_format = StreamFormat.QEMU
    log = Logger()

    def __init__(self, config: Config, paths: DriverPaths) -> None:
        self._config = config
        self._plant = Plant(paths)
        self._domains: dict[UUID, Domain] = {}
        self._building: set[UUID] = set()
        self._listeners: list[Callable[[DomainChanged], None]] = []
        self._capabilities: Capabilities | None = None
        self._user = ""
        self._cpus: dict[tuple[object, ...], CpuWords] = {}
        self._housekeeping = LoopingCall(lambda: background(self._bound_logs(), "bounding logs"))

    # -- life of the daemon ------------------------------------------------------------------------------------

    async def start(self) -> None:
        await self._plant.open()
        self._capabilities = await probe(self._config, self._plant.paths, self._plant.worker)
        self._user = await self._plant.worker.run(user_for, self._config.qemu_user)
        for record in await self._plant.worker.run(self._plant.records):
            await self._take_up(record)
        await self._plant.sweep([domain.config for domain in self._domains.values()])
        self._housekeeping.start(_LOG_CHECK_S, now=False)

    async def stop(self) -> None:
        if self._housekeeping.running:
            self._housekeeping.stop()
        domains, self._domains = self._domains, {}
        for domain in domains.values():
            await domain.let_go()
        await self._plant.close()

    async def _take_up(self, record: Record) -> None:
        domain = await self._plant.adopt(record)
        if domain is None:
            await self._plant.remove(record, logs_too=False)
            self._tell(record.uuid, None, "its QEMU ended while relocd was not running")
            return
        await self._accept(domain)

    async def _accept(self, domain: Domain) -> None:
        """Go on with a domain as it was found."""
        if domain.role is Role.INCOMING and domain.guest is DomainState.RUNNING:
            await domain.assign(Role.OWN)  # only Incoming.resume lets an incoming guest run
        self._register(domain)
        if domain.role is Role.OWN:
            await self._settle(domain)

    async def _reconnect(self, domain: Domain) -> None:
        """The connection to a QEMU is lost: if that has not ended, take it up anew, as a new daemon would."""
        pause_s = _RECONNECT_FIRST_S
        while True:
            await awaited(asyncio.sleep(pause_s))
            pause_s = min(pause_s * 2, _RECONNECT_LAST_S)
            if not self._is_here(domain):
                return
            successor = await self._plant.adopt(domain.record)
            if successor is None:
                return  # its end has been noticed, too
            if self._is_here(domain) and not successor.monitor.gone.fired:
                break
            await successor.let_go()
        domain.process.let_go()
        self.log.warn("domain {name}: its QEMU answers again", name=domain.config.name)
        await self._accept(successor)
        if successor.state is not domain.state:
            self._tell(successor.uuid, successor.state, "found when its QEMU answered again")

    def _is_here(self, domain: Domain) -> bool:
        ending = domain.doomed or domain.removed or domain.process.ended.fired
        return self._domains.get(domain.uuid) is domain and not ending

    # -- what is known -----------------------------------------------------------------------------------------

    def facts(self) -> HypervisorFacts:
        return self._known.facts()

    async def memory_free_mib(self) -> int | None:
        return None

    def list(self) -> Sequence[DomainStatus]:
        return sorted((domain.status() for domain in self._domains.values()), key=lambda status: status.id)

    def get(self, uuid: UUID) -> DomainStatus | None:
        domain = self._domains.get(uuid)
        return domain.status() if domain else None

    def console_path(self, uuid: UUID) -> Path:
        return self._plant.console_path(self._find(uuid).uuid)

    async def cpu_words(self, config: DomainConfig) -> CpuWords:
        domain = self._domains.get(config.uuid)
        if domain is not None:
            return await cpu.words(domain.monitor)
        kind = (config.machine, config.cpu, config.accelerator)
        if kind not in self._cpus:
            self._cpus[kind] = await cpu.offered(
                config, self._known.binary, self._plant.paths, self._plant.worker
            )
        return self._cpus[kind]

    def disk_in_use(self, path: str) -> bool | None:
        return in_use(path)

    async def refresh(self) -> None:
        pass  # QEMU tells

    def subscribe(self, listener: Callable[[DomainChanged], None]) -> None:
        self._listeners.append(listener)

    # -- what is done ------------------------------------------------------------------------------------------

    async def create(self, config: DomainConfig, *, paused: bool = False) -> DomainStatus:
        fixed = self._known.fix(config, self._config)
        limit_bytes = self._config.boot_file_limit_bytes
        fixed = await self._plant.worker.run(
            bootstore.fill, self._plant.paths.boot, fixed, limit_bytes=limit_bytes
        )
        domain = await self._build(fixed, Role.OWN)
        try:
            await self._plant.network.connect(fixed)
            if not paused:
                await domain.cont()
        except BaseException:
            await self._destroy(domain)
            raise
        return domain.status()

    async def pause(self, uuid: UUID) -> None:
        await self._own(uuid, "paused").stop()

    async def unpause(self, uuid: UUID) -> None:
        domain = self._own(uuid, "unpaused")
        if domain.guest not in (DomainState.PAUSED, DomainState.RUNNING):
            raise BadState(
                f"Domain '{domain.config.name}' is {domain.state}.", hint="Destroy it, or create it anew."
            )
        await domain.cont()
        await domain.announce()  # one that arrived paused has not been heard of here yet

    async def shutdown(self, uuid: UUID) -> None:
        await self._own(uuid, "shut down").monitor.execute("system_powerdown")

    async def reboot(self, uuid: UUID) -> None:
        await self._own(uuid, "rebooted").monitor.execute("send-key", {"keys": _REBOOT_KEYS})

    async def destroy(self, uuid: UUID) -> None:
        await self._destroy(self._own(uuid, "destroyed"))

    async def measure(self, uuid: UUID) -> Load:
        return await load.measure(self._own(uuid, "measured"), self._plant.worker)

    def outgoing(self, uuid: UUID) -> QemuOutgoing:
        return QemuOutgoing(
            self._plant,
            lambda: self._domains.get(uuid),
            self._destroy,
            self._settle,
            self._known.facts().channels_max,
        )

    def incoming(self, config: DomainConfig) -> QemuIncoming:
        return QemuIncoming(
            config,
            self._plant,
            lambda: self._domains.get(config.uuid),
            self._build,
            self._destroy,
            direct_placement=self._config.direct_placement,
        )

    # -- how ---------------------------------------------------------------------------------------------------

    @property
    def _known(self) -> Capabilities:
        if self._capabilities is None:
            raise DriverError("the driver is not started")
        return self._capabilities

    def _find(self, uuid: UUID) -> Domain:
        domain = self._domains.get(uuid)
        if domain is None:
            raise UnknownDomain(str(uuid))
        return domain

    def _own(self, uuid: UUID, what: str) -> Domain:
        """A domain that is this host's alone: nobody else may decide about one that is being relocated."""
        domain = self._find(uuid)
        if domain.role is not Role.OWN:
            raise BadState(
                f"Domain '{domain.config.name}' is being relocated and cannot be {what}.",
                hint="Wait for the end of the relocation, or cancel it.",
            )
        return domain

    async def _build(self, config: DomainConfig, role: Role, disk_roots: tuple[str, ...] = ("/",)) -> Domain:
        if self._known.fix(config, self._config) != config:
            raise DriverError(
                "machine, CPU model and accelerator of a domain must be fixed before it comes here"
            )
        if config.uuid in self._domains or config.uuid in self._building:
            raise BadState(f"a domain with the UUID {config.uuid} is here already")
        self._building.add(config.uuid)
        try:
            record = await self._plant.new_record(config, role)
            known = self._known
            domain = await self._plant.build(record, known, user=self._user, disk_roots=disk_roots)
        finally:
            self._building.discard(config.uuid)
        self._register(domain)
        return domain

    def _register(self, domain: Domain) -> None:
        self._domains[domain.uuid] = domain
        domain.on_change = lambda: self._tell(domain.uuid, domain.state, "not by relocd")
        what = f"after the end of domain {domain.config.name}"
        domain.on_end = lambda: background(self._guest_ended(domain), what)
        domain.process.ended.then(lambda: background(self._ended(domain), what) and None)
        lost = f"reconnecting to domain {domain.config.name}"
        domain.monitor.gone.then(lambda: background(self._reconnect(domain), lost) and None)

    async def _ended(self, domain: Domain) -> None:
        """QEMU has ended; if nobody asked for it, tell everyone, whatever the clearing up comes to."""
        if domain.doomed:
            return
        await domain.monitor.gone.wait(_LAST_WORDS_S)
        reason = self._plant.epitaph(domain)
        try:
            await self._remove(domain, logs_too=False)
        finally:
            self._tell(domain.uuid, None, reason)

    async def _destroy(self, domain: Domain) -> None:
        """End and remove a domain. Idempotent; raises DriverError while something of it is left."""
        domain.doomed = True
        never_ran = domain.role is Role.INCOMING  # and has nothing to write back
        await domain.process.end(grace_s=0.0 if never_ran else _QUIT_GRACE_S)
        await self._remove(domain, logs_too=True)

    async def _remove(self, domain: Domain, *, logs_too: bool) -> None:
        domain.removed = True
        await domain.let_go()
        await self._plant.remove(domain.record, logs_too=logs_too)
        if self._domains.get(domain.uuid) is domain:
            del self._domains[domain.uuid]

    async def _guest_ended(self, domain: Domain) -> None:
        if domain.role is not Role.OUTGOING:  # who sends it takes it back first, then the same is done
            await self._settle(domain)

    async def _settle(self, domain: Domain) -> None:
        """Do what the domain's configuration wants if its guest has ended."""
        cause = domain.ending
        if cause is None:
            return
        choose = lifecycle.action_when_found if domain.ending_guessed else lifecycle.action
        action = choose(domain.config, cause)
        self.log.info(
            "domain {name}: {cause}, so {action}",
            name=domain.config.name,
            cause=cause.value,
            action=action.value,
        )
        if action is Action.DESTROY:
            await domain.process.end(grace_s=_QUIT_GRACE_S)
        elif action is Action.RESTART:
            await domain.reset()
            self._tell(domain.uuid, domain.state, f"restarted after {cause.value}")
        else:
            self._tell(domain.uuid, domain.state, f"{cause.value} of the guest")

    def _tell(self, uuid: UUID, state: DomainState | None, reason: str) -> None:
        self.log.info("domain {uuid}: {state} ({reason})", uuid=uuid, state=state or "gone", reason=reason)
        for listener in tuple(self._listeners):
            listener(DomainChanged(uuid, state, reason))

    async def _bound_logs(self) -> None:
        limit_bytes = self._config.console_limit_kib * _KIB
        for uuid in tuple(self._domains):
            await self._plant.worker.run(logs.bound_all, self._plant.paths.log, uuid, limit_bytes)
