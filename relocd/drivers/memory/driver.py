"""The contract's Driver, Outgoing and Incoming on guests in memory."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from uuid import UUID

from attrs import evolve
from twisted.internet.threads import deferToThread

from relocd.config import Config
from relocd.drivers.base import DomainChanged, DriverPaths, GuestMemory
from relocd.drivers.memory.guest import PAGE_BYTES, Guest
from relocd.drivers.memory.host import Host, MemoryDomain, Role, Step, host_at
from relocd.drivers.memory.transfer import COMPLETED, DIRTY_PAGES, PAUSED, Transfer
from relocd.errors import BadState, DriverError, UnknownDomain
from relocd.host import bootstore
from relocd.model import Accelerator, CpuWords, DomainConfig, DomainStatus, HypervisorFacts, Load, Progress
from relocd.pages.stream_format import StreamFormat

DRIVER = "memory"
MACHINE = "memory-1"
CPU = "counter-1"


class MemoryDriver:
    """See :class:`relocd.drivers.base.Driver`."""

    name = DRIVER
    stream_format = StreamFormat.OPAQUE

    def __init__(self, config: Config, paths: DriverPaths) -> None:
        self._config = config
        self._paths = paths
        self._host = host_at(paths.run)
        self._listeners: list[Callable[[DomainChanged], None]] = []

    async def start(self) -> None:
        for directory in (self._paths.boot, self._paths.log):
            directory.mkdir(parents=True, exist_ok=True)

    async def stop(self) -> None:
        self._listeners.clear()

    def facts(self) -> HypervisorFacts:
        return HypervisorFacts(
            driver=DRIVER,
            version="1.0",
            architecture="x86_64",
            accelerators=frozenset({Accelerator.TCG}),
            machines=frozenset({MACHINE}),
            cpu_models=frozenset({CPU}),
        )

    async def memory_free_mib(self) -> int | None:
        return None

    def list(self) -> Sequence[DomainStatus]:
        return sorted(
            (domain.status() for domain in self._host.domains.values()), key=lambda status: status.id
        )

    def get(self, uuid: UUID) -> DomainStatus | None:
        domain = self._host.domains.get(uuid)
        return domain.status() if domain else None

    async def cpu_words(self, config: DomainConfig) -> CpuWords:
        return {}

    def disk_in_use(self, path: str) -> bool | None:
        return None

    async def refresh(self) -> None:
        pass

    def subscribe(self, listener: Callable[[DomainChanged], None]) -> None:
        self._listeners.append(listener)

    def console_path(self, uuid: UUID) -> Path:
        return self._paths.run / f"{self._find(uuid).config.uuid}.console"

    async def create(self, config: DomainConfig, *, paused: bool = False) -> DomainStatus:
        self._host.check(Step.CREATE)
        limit_bytes = self._config.boot_file_limit_bytes
        filled = await deferToThread(bootstore.fill, self._paths.boot, config, limit_bytes=limit_bytes)
        fixed = evolve(filled, hypervisor=DRIVER, machine=MACHINE, cpu=CPU, accelerator=Accelerator.TCG)
        domain = add(self._host, fixed, Role.OWN)
        domain.reachable = True
        if not paused:
            domain.guest.run()
        return domain.status()

    async def pause(self, uuid: UUID) -> None:
        self._own(uuid).guest.pause()

    async def unpause(self, uuid: UUID) -> None:
        self._own(uuid).guest.run()

    async def shutdown(self, uuid: UUID) -> None:
        self.lose(self._own(uuid).config.uuid, "power-off of the guest")

    async def reboot(self, uuid: UUID) -> None:
        self._own(uuid).guest.counter_ms = 0

    async def destroy(self, uuid: UUID) -> None:
        del self._host.domains[self._own(uuid).config.uuid]

    async def measure(self, uuid: UUID) -> Load:
        """A guest that runs writes to the same few pages all the time."""
        guest = self._own(uuid).guest
        dirtied_bytes = min(DIRTY_PAGES, len(guest.versions)) * PAGE_BYTES if guest.running else 0
        return Load((dirtied_bytes, dirtied_bytes), len(guest.versions) * PAGE_BYTES)

    def outgoing(self, uuid: UUID) -> MemoryOutgoing:
        return MemoryOutgoing(self._host, uuid)

    def incoming(self, config: DomainConfig) -> MemoryIncoming:
        return MemoryIncoming(self._host, config, self._paths.boot)

    def lose(self, uuid: UUID, reason: str) -> None:
        """The domain ends by itself, as a guest that powers off or a hypervisor that crashes."""
        domain = self._host.domains.pop(uuid)
        domain.guest.pause()
        if domain.transfer is not None:
            domain.transfer.break_off(reason)
        for listener in tuple(self._listeners):
            listener(DomainChanged(uuid, None, reason))

    def _find(self, uuid: UUID) -> MemoryDomain:
        if uuid not in self._host.domains:
            raise UnknownDomain(str(uuid))
        return self._host.domains[uuid]

    def _own(self, uuid: UUID) -> MemoryDomain:
        domain = self._find(uuid)
        if domain.role is not Role.OWN:
            raise BadState(f"Domain '{domain.config.name}' is being relocated.")
        return domain


def add(host: Host, config: DomainConfig, role: Role) -> MemoryDomain:
    """Build a domain, paused. Raises BadState if it is there already."""
    if config.uuid in host.domains:
        raise BadState(f"a domain with the UUID {config.uuid} is here already")
    host.last_id += 1
    domain = MemoryDomain(config, host.last_id, role, Guest.new(config.memory_mib))
    host.domains[config.uuid] = domain
    return domain


class MemoryOutgoing:
    """See :class:`relocd.drivers.base.Outgoing`."""

    steerable = True

    def __init__(self, host: Host, uuid: UUID) -> None:
        self._host = host
        self._uuid = uuid

    @property
    def was_paused(self) -> bool:
        domain = self._host.domains.get(self._uuid)
        if domain is None:
            return False
        return domain.was_paused if domain.role is Role.OUTGOING else not domain.guest.running

    def require(self, *, live: bool) -> None:
        """Everything can leave."""

    @property
    def channels_max(self) -> int:
        return 0

    def channels(self) -> Sequence[socket.socket]:
        return ()

    async def start(
        self, *, live: bool, downtime_limit_ms: int, may_throttle: bool = False, channels: int = 0
    ) -> socket.socket:
        self._host.check(Step.START)
        domain = self._domain()
        if domain.role is not Role.OWN:
            raise BadState(f"Domain '{domain.config.name}' is being relocated already.")
        domain.was_paused, domain.role = self.was_paused, Role.OUTGOING
        if not live:
            domain.guest.pause()
        ours, theirs = socket.socketpair()
        domain.transfer = Transfer.outgoing(
            domain.guest,
            theirs,
            live=live,
            downtime_limit_ms=downtime_limit_ms,
            check=lambda step: self._host.check(Step(step)),
        )
        return ours

    async def adjust(self, *, downtime_limit_ms: int, throttle_percent: int = 0) -> None:
        transfer = self._transfer()
        transfer.downtime_limit_ms = downtime_limit_ms
        transfer.throttle_percent = throttle_percent

    async def progress(self) -> Progress:
        domain = self._domain()
        return Progress(
            round=domain.transfer.round if domain.transfer else 0,
            total_bytes=len(domain.guest.versions) * PAGE_BYTES,
            remaining_bytes=len(domain.guest.dirty) * PAGE_BYTES,
            round_bytes=domain.transfer.round_bytes if domain.transfer else 0,
        )

    async def paused(self) -> None:
        await self._until(PAUSED)

    async def switch_over(self) -> None:
        self._host.check(Step.SWITCH_OVER)
        self._transfer().proceed()

    async def finished(self) -> None:
        await self._until(COMPLETED)

    async def cancel(self) -> None:
        self._host.check(Step.CANCEL)
        domain = self._host.domains.get(self._uuid)
        if domain is None or domain.role is not Role.OUTGOING:
            return
        if domain.transfer is not None:
            await domain.transfer.cancel()
        if not domain.was_paused:
            domain.guest.run()
        domain.transfer, domain.role = None, Role.OWN

    async def release(self) -> None:
        self._host.check(Step.RELEASE)
        domain = self._host.domains.get(self._uuid)
        if domain is None:
            return
        if domain.role is not Role.OUTGOING:
            raise BadState(f"Domain '{domain.config.name}' is not on its way out.")
        if domain.transfer is not None:
            await domain.transfer.cancel()
        del self._host.domains[self._uuid]

    async def _until(self, status: str) -> None:
        name, transfer = self._domain().config.name, self._transfer()
        try:
            await transfer.until(status)
        except DriverError:
            await self.cancel()
            if self._uuid not in self._host.domains:
                reason = f"domain '{name}' ended while it was being relocated: {transfer.error}"
                raise DriverError(reason) from None
            raise

    def _domain(self) -> MemoryDomain:
        if self._uuid not in self._host.domains:
            raise DriverError("the domain is gone")
        return self._host.domains[self._uuid]

    def _transfer(self) -> Transfer:
        transfer = self._domain().transfer
        if transfer is None:
            raise DriverError("the domain is not being sent")
        return transfer


class MemoryIncoming:
    """See :class:`relocd.drivers.base.Incoming`."""

    def __init__(self, host: Host, config: DomainConfig, boot: Path) -> None:
        self._host = host
        self._config = config
        self._boot = boot

    async def prepare(self, disk_roots: tuple[str, ...] = ("/",), channels: int = 0) -> socket.socket:
        self._host.check(Step.PREPARE)
        await deferToThread(bootstore.require, self._boot, self._config)
        domain = add(self._host, self._config, Role.INCOMING)
        ours, theirs = socket.socketpair()
        domain.transfer = Transfer.incoming(
            domain.guest, theirs, check=lambda step: self._host.check(Step(step))
        )
        return ours

    def memory(self) -> GuestMemory | None:
        return None

    def channels(self) -> Sequence[socket.socket]:
        return ()

    async def loaded(self) -> None:
        transfer = self._domain().transfer
        if transfer is None:
            raise DriverError(f"domain '{self._config.name}' was never sent")
        await transfer.until(COMPLETED)

    async def resume(self, *, paused: bool) -> None:
        self._host.check(Step.RESUME)
        domain = self._domain()
        if domain.role is Role.OUTGOING:
            raise BadState(f"Domain '{self._config.name}' is on its way out already.")
        if domain.role is Role.INCOMING and (domain.transfer is None or domain.transfer.status != COMPLETED):
            raise BadState(f"Domain '{self._config.name}' is not loaded.")
        domain.role, domain.reachable, domain.transfer = Role.OWN, True, None
        if not paused:
            domain.guest.run()

    async def discard(self) -> None:
        self._host.check(Step.DISCARD)
        domain = self._host.domains.get(self._config.uuid)
        if domain is None:
            return
        if domain.role is not Role.INCOMING:
            raise BadState(f"Domain '{self._config.name}' is this host's own and is not discarded.")
        if domain.transfer is not None:
            await domain.transfer.cancel()
        del self._host.domains[self._config.uuid]

    def _domain(self) -> MemoryDomain:
        if self._config.uuid not in self._host.domains:
            raise DriverError(f"domain '{self._config.name}' is not being received here")
        return self._host.domains[self._config.uuid]
