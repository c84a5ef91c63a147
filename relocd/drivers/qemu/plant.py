"""What a domain uses on this host: taps, process, sockets, record, logs. Builds it, takes it up again, removes it.

The record is written before the first thing is made and removed after the last one is gone; whatever is in between
when the daemon dies is found by the sweep at the next start.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Container, Sequence
from pathlib import Path
from uuid import UUID

from attrs import evolve
from twisted.logger import Logger

from relocd.drivers.base import DriverPaths
from relocd.drivers.qemu import logs, streams
from relocd.drivers.qemu.capabilities import Capabilities
from relocd.drivers.qemu.cmdline import Launch, argv
from relocd.drivers.qemu.disks import Claims, activate, examine, opened_elsewhere
from relocd.drivers.qemu.domain import Domain
from relocd.drivers.qemu.network import Network
from relocd.drivers.qemu.process import (
    INHERITED_FD,
    Identity,
    Process,
    alive,
    in_scope,
    search,
    spawn,
)
from relocd.drivers.qemu.qmp import Monitor, MonitorLost
from relocd.drivers.qemu.sockets import check_length, listening
from relocd.drivers.qemu.store import Record, Role, Store
from relocd.drivers.worker import Worker
from relocd.errors import DriverError
from relocd.host import bootstore
from relocd.model import DomainConfig, DomainState

_START_TIMEOUT_S = 30.0
"""Until QEMU answers. It takes 50 ms, or seconds on a busy host or from a slow disk."""

_ADOPT_TIMEOUT_S = 5.0


class Plant:
    """The means of one daemon."""

    log = Logger()

    def __init__(self, paths: DriverPaths) -> None:
        self.paths = paths
        self.worker = Worker("qemu")
        self.network = Network(str(paths.run))
        self._claims = Claims()
        self._records = Worker("records")
        self._store = Store(paths.state)

    async def open(self) -> None:
        """Make the directories and connect to the kernel."""
        for directory in (self.paths.run / "domains", self.paths.boot, self.paths.log):
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        await self.network.open()

    async def close(self) -> None:
        """Let go of everything; domains go on."""
        await self.network.close()
        self._claims.close()
        self.worker.stop()
        self._records.stop()

    async def new_record(self, config: DomainConfig, role: Role) -> Record:
        """A record with an id of its own, not yet written."""
        return Record(config, await self._records.run(self._store.next_id), role)

    async def save(self, record: Record) -> None:
        """Write a record down; it is on disk when this returns."""
        await self._records.run(self._store.save, record)

    async def build(
        self, record: Record, known: Capabilities, *, user: str = "", disk_roots: tuple[str, ...] = ("/",)
    ) -> Domain:
        """Start a domain's QEMU, paused, its network not connected. Whatever fails, nothing is left.

        It becomes ``user`` unless that is empty. Its disks, and what they rest on, must lie in one of ``disk_roots``.
        """
        await self.save(record)
        try:
            await self.worker.run(bootstore.require, self.paths.boot, record.config)
            launch = await self._prepare(record, known, user, disk_roots)
            return await self._launch(record, launch)
        except BaseException:
            await self._end_stray(record)
            await self.remove(record, logs_too=False)
            raise

    async def adopt(self, record: Record) -> Domain | None:
        """Take up a domain of a former daemon; None if its QEMU is gone.

        One that runs and does not answer is taken up too: it can be seen, and destroyed.
        """
        identity = record.process
        if identity is None:
            identity = await self.worker.run(search, record.uuid, self.console_path(record.uuid))
            record = evolve(record, process=identity)
        process = _watched(identity, record.uuid) if identity else None
        if process is None:
            return None
        if record.role is Role.OUTGOING:  # a QEMU that waits for its channels does not answer
            await self.worker.run(streams.drain, process.identity.pid, self.run_dir(record.uuid))
        try:
            monitor = await self._connect(record, _ADOPT_TIMEOUT_S)
        except MonitorLost:
            monitor = Monitor.absent(record.config.name)
        domain = Domain(record, process, monitor, self.save)
        try:
            await domain.refresh()
        except DriverError as error:
            self.log.error("{name}: {error}", name=record.config.name, error=error)
            # Nobody may take one that is on its way for running here: that would bring it back, or make it ours.
            moving = record.role is not Role.OWN
            domain.guest = DomainState.PAUSED if moving else DomainState.RUNNING
        return domain

    async def remove(self, record: Record, *, logs_too: bool) -> None:
        """Remove what a domain used whose QEMU has ended. Idempotent.

        Raises DriverError if something could not be removed; the record stays then, for another try.
        """
        await self.network.remove(record.config)
        await self.worker.run(self._remove_files, record.uuid, logs_too)
        await self._records.run(self._store.remove, record.uuid)

    async def drain(self, domain: Domain) -> None:
        """Have nothing wait for what a domain's channels still carry: nobody wants it any more."""
        await self.worker.run(streams.drain, domain.process.identity.pid, self.run_dir(domain.uuid))

    async def check_opened(self, domain: Domain, disk_roots: tuple[str, ...]) -> None:
        """Raise DriverError if a domain's QEMU has opened a file that is neither there nor ours."""
        ours = [str(path) for path in (self.paths.log, self.paths.run, self.paths.boot)]
        pid, disks = domain.process.identity.pid, domain.config.disks
        try:
            elsewhere = await self.worker.run(lambda: list(opened_elsewhere(pid, disks, disk_roots, ours)))
        except OSError as error:
            raise DriverError(
                f"what the QEMU of domain '{domain.config.name}' has opened cannot be seen: {error.strerror}",
                hint="relocd needs CAP_SYS_PTRACE where QEMU runs as another user.",
            ) from error
        for path in elsewhere:
            raise DriverError(
                f"a disk of domain '{domain.config.name}' leads to {path}, outside of {' '.join(disk_roots)}"
            )

    async def wait_disks(self, domain: Domain) -> None:
        """Return once nobody else has a disk of the domain locked; raises DriverError if somebody keeps it."""
        await self._claims.wait_free(domain.config.disks, domain.process.identity.pid)

    async def check_disks(self, domain: Domain) -> None:
        """Raise DriverError if somebody else has a disk of the domain locked now."""
        await self._claims.check_free(domain.config.disks, domain.process.identity.pid)

    async def activate_disks(self, domain: Domain) -> None:
        """Have a paused domain take its disks and their locks; raises DriverError if somebody else has one."""
        await activate(domain.monitor, domain.config.disks, self.run_dir(domain.uuid))
        await self.check_disks(domain)  # QEMU does not say when it could not

    async def remove_logs(self, uuid: UUID) -> None:
        """Remove what a domain's logs hold. Idempotent."""
        await self.worker.run(logs.remove, self.paths.log, uuid)

    def records(self) -> list[Record]:
        """What was known of domains when the last daemon ended. Blocks."""
        return list(self._store.load())

    async def sweep(self, living: Sequence[DomainConfig]) -> None:
        """Remove taps, run files and old logs that no domain uses."""
        await self.network.sweep(living)
        used = {str(config.uuid) for config in living}
        await self.worker.run(self._sweep_files, used)

    def console_path(self, uuid: UUID) -> Path:
        """The console's socket."""
        return self.run_dir(uuid) / "console.sock"

    def run_dir(self, uuid: UUID) -> Path:
        """Where a domain's sockets are."""
        return self.paths.run / "domains" / str(uuid)

    def complaint(self, uuid: UUID) -> str:
        """The last that a domain's QEMU wrote to its error log; empty if nothing. Blocks for a short read."""
        return logs.last_words(logs.error_log(self.paths.log, uuid))

    def epitaph(self, domain: Domain) -> str:
        """Why a domain ended, in words."""
        if domain.ending is not None:
            return f"{domain.ending.value} of the guest"
        words = self.complaint(domain.uuid)
        return f"QEMU {domain.process.status}" + (f": {words}" if words else "")

    def _monitor_path(self, uuid: UUID) -> Path:
        return self.run_dir(uuid) / "monitor.sock"

    async def _prepare(
        self, record: Record, known: Capabilities, user: str, disk_roots: tuple[str, ...]
    ) -> Launch:
        config = record.config
        check_length(self.console_path(record.uuid))
        self.run_dir(record.uuid).mkdir(mode=0o700, exist_ok=True)
        disks = [await self.worker.run(examine, disk, disk_roots) for disk in config.disks]
        return Launch(
            binary=known.binary,
            boot_dir=str(self.paths.boot),
            monitor_fd=INHERITED_FD,
            console_socket=str(self.console_path(record.uuid)),
            console_log=str(logs.console_log(self.paths.log, record.uuid)),
            taps=await self.network.create(config),
            disks=tuple(disks),
            sandbox=known.sandbox,
            run_as=known.run_as(user),
            incoming=record.role is Role.INCOMING,
        )

    async def _launch(self, record: Record, launch: Launch) -> Domain:
        unit = f"relocd-domain-{record.uuid}-{record.id}"
        command = in_scope(argv(record.config, launch), unit=unit, environment=os.environ)
        log = logs.error_log(self.paths.log, record.uuid)
        monitor_path, run_dir = self._monitor_path(record.uuid), self.run_dir(record.uuid)
        with listening(monitor_path) as listener, streams.opened(run_dir) as directory:
            inherited = [listener.fileno(), directory]
            identity = await self.worker.run(spawn, command, log=log, descriptors=inherited)
        record = evolve(record, process=identity)
        await self.save(record)
        try:
            monitor = await self._connect(record, _START_TIMEOUT_S)
        except MonitorLost as error:
            reason = self.complaint(record.uuid) or "it gave no reason"
            raise DriverError(f"QEMU did not start: {reason}", hint=f"see {log}") from error
        return Domain(record, Process(identity), monitor, self.save)

    async def _connect(self, record: Record, timeout_s: float) -> Monitor:
        path = self._monitor_path(record.uuid)
        return await Monitor.connect(path, name=record.config.name, timeout_s=timeout_s)

    async def _end_stray(self, record: Record) -> None:
        """End a QEMU that was started, but not far enough to be a domain."""
        identity = await self.worker.run(search, record.uuid, self.console_path(record.uuid))
        if identity is not None:
            process = Process(identity)
            process.kill()
            await process.ended.wait()

    def _remove_files(self, uuid: UUID, logs_too: bool) -> None:
        shutil.rmtree(self.run_dir(uuid), ignore_errors=True)
        if logs_too:
            logs.remove(self.paths.log, uuid)

    def _sweep_files(self, used: Container[str]) -> None:
        for directory in (self.paths.run / "domains").iterdir():
            if directory.name not in used:
                shutil.rmtree(directory, ignore_errors=True)
        logs.sweep(self.paths.log, used)


def _watched(identity: Identity, uuid: UUID) -> Process | None:
    """The process, if it still is the domain's. Looked at once it is held, since a pid can be given away any time."""
    try:
        process = Process(identity)
    except DriverError:
        return None
    if alive(identity, uuid):
        return process
    process.let_go()
    return None
