"""The contract's Driver on Xen: the register of this host's domains and what can be done with each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from uuid import UUID

from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from relocd.config import Config
from relocd.drivers.aio import background
from relocd.drivers.base import DomainChanged, DriverPaths
from relocd.drivers.qemu import lifecycle
from relocd.drivers.qemu.store import Role
from relocd.drivers.xen import xenstore
from relocd.drivers.xen.census import Census
from relocd.drivers.xen.console import Console
from relocd.drivers.xen.domain import Domain
from relocd.drivers.xen.incoming import XenIncoming
from relocd.drivers.xen.keeping import Keeping
from relocd.drivers.xen.listing import parse_info
from relocd.drivers.xen.outgoing import Register, XenOutgoing
from relocd.drivers.xen.plant import Plant
from relocd.drivers.xen.store import Record
from relocd.drivers.xen.xenstore import Xenstore
from relocd.drivers.xen.xlconfig import DRIVER, facts_from, fixed
from relocd.errors import BadState, DriverError, UnknownDomain
from relocd.host import bootstore
from relocd.model import Action, CpuWords, DomainConfig, DomainState, DomainStatus, HypervisorFacts, Load
from relocd.pages.stream_format import StreamFormat

_LOOK_S = 10.0
"""What Xen does not announce, such as a pause by somebody else, is seen as late as this."""
_KIB = 1024


class XenDriver:
    """See :class:`relocd.drivers.base.Driver`."""

    name = DRIVER
    stream_format = StreamFormat.XEN
    log = Logger()

    def __init__(self, config: Config, paths: DriverPaths, *, xenstore: Path = xenstore.SOCKET) -> None:
        self._config = config
        self._xenstore_path = xenstore
        self._plant = Plant(paths)
        self._domains: dict[UUID, Domain] = {}
        self._building: set[UUID] = set()
        self._listeners: list[Callable[[DomainChanged], None]] = []
        self._info: dict[str, str] = {}
        self._xenstore: Xenstore | None = None
        self._census = Census(self._plant.xl, self._domains, self._changed)
        self._housekeeping = LoopingCall(lambda: background(self._keep_house(), "looking at domains"))

    # -- life of the daemon ------------------------------------------------------------------------------------

    async def start(self) -> None:
        self._plant.open()
        self._info = parse_info(await self._plant.xl.run("info"))
        self._xenstore = await Xenstore.connect(self._census.soon, self._xenstore_path)
        for record in await self._plant.worker.run(self._plant.records):
            await self._take_up(record)
        await self._plant.sweep({str(uuid) for uuid in self._domains})
        await self._xenstore.watch("@releaseDomain")
        self._housekeeping.start(_LOOK_S, now=False)

    async def stop(self) -> None:
        if self._housekeeping.running:
            self._housekeeping.stop()
        self._census.stop()
        domains, self._domains = tuple(self._domains.values()), {}
        for domain in domains:
            domain.let_go()
        if self._xenstore is not None:
            self._xenstore.close()
        self._plant.close()

    async def _take_up(self, record: Record) -> None:
        """Go on with a domain of a former daemon."""
        domain = Domain(record, self._plant.directory(record.uuid), self._plant.save)
        if record.role is not Role.OWN:
            domain.keeping = await Keeping.find(domain.directory)
        await self._census.find(domain)
        arriving = domain.keeping is not None and not domain.keeping.ended.fired
        if domain.seen is None and not (record.role is Role.INCOMING and arriving):
            await self._plant.remove(record.uuid, logs_too=False)
            self._tell(record.uuid, None, "it ended while relocd was not running")
            return
        if (
            record.role is Role.INCOMING
            and domain.seen is not None
            and not domain.seen.paused
            and not arriving
        ):
            await domain.assign(Role.OWN)  # only Incoming.resume lets an incoming guest run
        self._register(domain)
        await self._open_console(domain)
        if domain.role is Role.OWN:
            await self._settle(domain)

    # -- what is known -----------------------------------------------------------------------------------------

    def facts(self) -> HypervisorFacts:
        return facts_from(self._info)

    async def memory_free_mib(self) -> int | None:
        return int(parse_info(await self._plant.xl.run("info")).get("free_memory", "0"))

    def list(self) -> Sequence[DomainStatus]:
        return sorted((domain.status() for domain in self._domains.values()), key=lambda status: status.id)

    def get(self, uuid: UUID) -> DomainStatus | None:
        domain = self._domains.get(uuid)
        return domain.status() if domain else None

    def console_path(self, uuid: UUID) -> Path:
        return self._plant.console_path(self._find(uuid).uuid)

    async def cpu_words(self, config: DomainConfig) -> CpuWords:
        return {}

    def disk_in_use(self, path: str) -> bool | None:
        return None

    async def refresh(self) -> None:
        await self._census.take()

    def subscribe(self, listener: Callable[[DomainChanged], None]) -> None:
        self._listeners.append(listener)

    async def measure(self, uuid: UUID) -> Load:
        self._own(uuid, "measured")
        raise DriverError(
            "xl does not tell what a guest does to its memory, so nothing can be predicted",
            hint="A relocation can be tried all the same: what fails leaves the domain here.",
        )

    # -- what is done ------------------------------------------------------------------------------------------

    async def create(self, config: DomainConfig, *, paused: bool = False) -> DomainStatus:
        named = fixed(config, self.facts())
        limit_bytes = self._config.boot_file_limit_bytes
        filled = await self._plant.worker.run(
            bootstore.fill, self._plant.paths.boot, named, limit_bytes=limit_bytes
        )
        domain = await self._enter(filled, Role.OWN)
        try:
            await self._build(domain, paused=paused)
        except BaseException:
            await self._destroy(domain)
            raise
        return domain.status()

    async def _build(self, domain: Domain, *, paused: bool) -> None:
        with domain.asked():
            path = await self._plant.write_config(domain.record, domain.config.name)
            unit = f"relocd-domain-{domain.uuid}-{domain.record.id}"
            words = ["create", "-e", *(["-p"] if paused else []), str(path)]
            await self._plant.xl.run_in_scope(unit, *words)
            await self._adopt(domain)
        if domain.seen is None:
            raise DriverError(f"domain '{domain.config.name}' ended as soon as it was started")

    async def pause(self, uuid: UUID) -> None:
        await self._set_paused(self._own(uuid, "paused"), paused=True)

    async def unpause(self, uuid: UUID) -> None:
        domain = self._own(uuid, "unpaused")
        if domain.state not in (DomainState.PAUSED, DomainState.RUNNING):
            raise BadState(
                f"Domain '{domain.config.name}' is {domain.state}.", hint="Destroy it, or create it anew."
            )
        await self._set_paused(domain, paused=False)

    async def _set_paused(self, domain: Domain, *, paused: bool) -> None:
        """Xen counts: who is paused twice has to be unpaused twice."""
        with domain.asked():
            await self._census.take()
            if domain.seen is not None and domain.seen.paused is not paused:
                await self._plant.xl.run("pause" if paused else "unpause", domain.domid)
                await self._census.take()

    async def shutdown(self, uuid: UUID) -> None:
        await self._plant.xl.run("shutdown", self._own(uuid, "shut down").domid)

    async def reboot(self, uuid: UUID) -> None:
        await self._plant.xl.run("reboot", self._own(uuid, "rebooted").domid)

    async def destroy(self, uuid: UUID) -> None:
        await self._destroy(self._own(uuid, "destroyed"))

    def outgoing(self, uuid: UUID) -> XenOutgoing:
        logs_dirty_pv = "shadow" in self._info.get("virt_caps", "").split()
        return XenOutgoing(self._plant, self._register_for(uuid), logs_dirty_pv=logs_dirty_pv)

    def incoming(self, config: DomainConfig) -> XenIncoming:
        return XenIncoming(config, self._plant, self._register_for(config.uuid), self._enter, self._adopt)

    # -- how ---------------------------------------------------------------------------------------------------

    def _register_for(self, uuid: UUID) -> Register:
        return Register(
            find=lambda: self._domains.get(uuid),
            refresh=self._census.take,
            destroy=self._destroy,
            settle=self._settle,
        )

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

    async def _enter(self, config: DomainConfig, role: Role) -> Domain:
        """A new domain in the list, of which Xen knows nothing yet. Raises BadState if it is there already."""
        if fixed(config, self.facts()) != config:
            raise DriverError("the machine of a domain must be fixed before it comes here")
        if config.uuid in self._domains or config.uuid in self._building:
            raise BadState(f"a domain with the UUID {config.uuid} is here already")
        self._building.add(config.uuid)
        try:
            record = Record(config, await self._plant.next_id(), role)
            await self._plant.save(record)
        finally:
            self._building.discard(config.uuid)
        domain = Domain(record, self._plant.directory(config.uuid), self._plant.save)
        domain.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._register(domain)
        return domain

    def _register(self, domain: Domain) -> None:
        self._domains[domain.uuid] = domain

    async def _adopt(self, domain: Domain) -> None:
        """Find a domain that xl has just built, and open its console."""
        await self._census.find(domain)
        await self._open_console(domain)

    async def _open_console(self, domain: Domain) -> None:
        if domain.seen is None or domain.console is not None or self._xenstore is None:
            return
        try:
            terminal = await self._xenstore.read(f"/local/domain/{domain.domid}/console/tty")
            path, log = self._plant.console_path(domain.uuid), self._plant.console_log(domain.uuid)
            domain.console = Console(terminal, path, log)
        except (DriverError, OSError) as error:
            self.log.warn("domain {name} has no console: {error}", name=domain.config.name, error=error)

    async def _destroy(self, domain: Domain) -> None:
        """End and remove a domain. Idempotent; raises DriverError while something of it is left."""
        domain.doomed = True
        with domain.asked():
            await self._census.find(domain)
            if domain.seen is not None:
                await self._plant.xl.run("destroy", domain.domid)
            await self._remove(domain, logs_too=True)

    async def _remove(self, domain: Domain, *, logs_too: bool) -> None:
        domain.removed = True
        domain.let_go()
        await self._plant.remove(domain.uuid, logs_too=logs_too)
        if self._domains.get(domain.uuid) is domain:
            del self._domains[domain.uuid]

    def _changed(self, domain: Domain, before: DomainState) -> None:
        """The census found something that nobody asked for."""
        if domain.seen is None:
            background(self._gone(domain), f"after the end of domain {domain.config.name}")
        elif domain.role is Role.OWN and domain.seen.ending is not None:
            background(self._settle(domain), f"after the end of domain {domain.config.name}")
        elif domain.role is Role.OWN and domain.state is not before:
            self._tell(domain.uuid, domain.state, "not by relocd")

    async def _gone(self, domain: Domain) -> None:
        if domain.doomed or domain.removed:
            return
        domain.doomed = True
        if domain.keeping is not None:
            domain.keeping.command("cancel")  # what is left of its stream is worth nothing
        try:
            await self._remove(domain, logs_too=False)
        finally:
            self._tell(domain.uuid, None, "it was killed: Xen has no such domain any more")

    async def _settle(self, domain: Domain) -> None:
        """Do what the domain's configuration wants if its guest has ended."""
        cause = domain.seen.ending if domain.seen is not None else None
        if cause is None or cause is domain.settled or domain.busy or domain.doomed:
            return
        domain.settled = cause
        action = lifecycle.action(domain.config, cause)
        name = domain.config.name
        self.log.info(
            "domain {name}: {cause}, so {action}", name=name, cause=cause.value, action=action.value
        )
        if action is Action.DESTROY:
            await self._destroy(domain)
            self._tell(domain.uuid, None, f"{cause.value} of the guest")
        elif action is Action.RESTART:
            await self._restart(domain, f"after {cause.value}")
        else:
            self._tell(domain.uuid, domain.state, f"{cause.value} of the guest")

    async def _restart(self, domain: Domain, why: str) -> None:
        """Xen knows no reset: what is left of the domain goes, and it is built anew."""
        with domain.asked():
            former = domain.domid
            await domain.number(0)  # so that nobody takes the end of the old one for the domain's
            await self._plant.xl.run("destroy", former)
            domain.let_go()
            domain.seen = domain.settled = None
            try:
                await self._build(domain, paused=False)
            except DriverError as error:
                await self._destroy(domain)
                self._tell(domain.uuid, None, f"it could not be restarted {why}: {error}")
                return
        self._tell(domain.uuid, domain.state, f"restarted {why}")

    def _tell(self, uuid: UUID, state: DomainState | None, reason: str) -> None:
        self.log.info("domain {uuid}: {state} ({reason})", uuid=uuid, state=state or "gone", reason=reason)
        for listener in tuple(self._listeners):
            listener(DomainChanged(uuid, state, reason))

    async def _keep_house(self) -> None:
        await self._census.take()
        limit_bytes = self._config.console_limit_kib * _KIB
        for uuid in tuple(self._domains):
            await self._plant.bound_logs(uuid, limit_bytes)
