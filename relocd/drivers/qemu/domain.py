"""One domain: its QEMU process, the connection to it, and what its guest does. Reactor thread only."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any
from uuid import UUID

from attrs import evolve
from twisted.internet.defer import DeferredLock

from relocd.drivers.qemu.lifecycle import ENDED_AS, RUN_STATES, SHUTDOWN_REASONS, Cause
from relocd.drivers.qemu.migration import Migration
from relocd.drivers.qemu.process import Process
from relocd.drivers.qemu.qmp import Monitor
from relocd.drivers.qemu.store import Record, Role
from relocd.model import DomainConfig, DomainState, DomainStatus

Save = Callable[[Record], Awaitable[None]]

_STATE_EVENTS = frozenset({"RESUME", "STOP", "SHUTDOWN", "GUEST_PANICKED"})

#: Of announce-self: QEMU's own defaults, five RARP frames an interface within 1.2 s.
_ANNOUNCEMENT = {"initial": 50, "max": 550, "rounds": 5, "step": 100}


class Domain:
    """A domain whose QEMU runs.

    ``guest`` says whether the guest runs, is paused, has powered off or crashed, whoever owns the domain.
    ``on_change`` is called when a domain of our own stops or goes on without being asked by us, ``on_end`` when
    the guest powers off, reboots for good or crashes; ``ending`` then says which, and ``ending_guessed`` whether that
    was seen or is what QEMU looks like now. ``doomed`` is set once we end it, ``removed`` once nothing may be written
    down of it any more.
    """

    def __init__(self, record: Record, process: Process, monitor: Monitor, save: Save) -> None:
        self.record = record
        self.process = process
        self.monitor = monitor
        self.migration = Migration(monitor, record.config.name)
        self.guest = DomainState.PAUSED
        self.on_change: Callable[[], object] = lambda: None
        self.on_end: Callable[[], object] = lambda: None
        self.ending: Cause | None = None
        self.ending_guessed = False
        self.doomed = False
        self.removed = False
        self.cancelling = DeferredLock()
        self._save = save
        self._asked = 0
        self._heard = 0
        monitor.listen(self._event)

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
    def state(self) -> DomainState:
        """As ``relocctl list`` shows it."""
        if self.role is Role.INCOMING:
            return DomainState.INCOMING
        if self.role is Role.OUTGOING and self.guest is DomainState.PAUSED:
            return DomainState.OUTGOING
        return self.guest

    def status(self) -> DomainStatus:
        """A snapshot for lists."""
        return DomainStatus(
            config=self.config,
            id=self.record.id,
            state=self.state,
            cpu_time_s=self.process.cpu_time_s(),
            resident_mib=self.process.resident_mib(),
        )

    async def assign(self, role: Role, *, was_paused: bool = False) -> None:
        """Write down whose the domain is from now on. In effect at once, on disk when this returns."""
        self.record = evolve(self.record, role=role, was_paused=was_paused)
        if not self.removed:
            await self._save(self.record)

    async def run_state(self) -> str:
        """QEMU's own word for what it does (qapi/run-state.json, RunState)."""
        return str((await self.monitor.execute("query-status"))["status"])

    async def refresh(self) -> None:
        """Find out what the guest does, for a QEMU that a former daemon started."""
        state = await self._present_state()
        if state in RUN_STATES:
            self.ending, self.ending_guessed = RUN_STATES[state], True
            self.guest = ENDED_AS[self.ending]
        else:
            self.guest = DomainState.RUNNING if state == "running" else DomainState.PAUSED
        await self.migration.refresh()

    async def _present_state(self) -> str:
        """The run state, of which no event has said since that it is another one: events overtake answers."""
        while True:
            heard = self._heard
            state = await self.run_state()
            if self._heard == heard:
                return state

    async def cont(self) -> None:
        """Let the guest run."""
        with self.asked():
            await self.monitor.execute("cont")

    async def stop(self) -> None:
        """Halt the guest."""
        with self.asked():
            await self.monitor.execute("stop")

    async def reset(self) -> None:
        """Restart a guest that has ended, from its firmware."""
        with self.asked():
            await self.monitor.execute("system_reset")
            await self.monitor.execute("cont")

    async def announce(self) -> None:
        """Have QEMU tell the network where the guest's addresses are now."""
        if self.config.vifs:
            await self.monitor.execute("announce-self", _ANNOUNCEMENT)

    @contextlib.contextmanager
    def asked(self) -> Iterator[None]:
        """What changes inside the block was asked for, so nobody has to be told. QEMU sends events before answers."""
        self._asked += 1
        try:
            yield
        finally:
            self._asked -= 1

    async def let_go(self) -> None:
        """Stop watching; QEMU goes on."""
        self.process.let_go()
        await self.monitor.close()

    def _event(self, event: str, data: Mapping[str, Any]) -> None:
        before = self.guest
        self._heard += event in _STATE_EVENTS
        if event == "RESUME":
            self.guest = DomainState.RUNNING
            self.ending = None
        elif event == "STOP" and self.guest is DomainState.RUNNING:
            self.guest = DomainState.PAUSED
        elif event == "SHUTDOWN" and data.get("guest"):
            self._ended(SHUTDOWN_REASONS.get(str(data.get("reason")), Cause.POWEROFF))
        elif event == "GUEST_PANICKED":
            self._ended(Cause.CRASH)
        if self.guest in (DomainState.RUNNING, DomainState.PAUSED) and self.guest is not before:
            self._tell()

    def _ended(self, cause: Cause) -> None:
        if self.ending is None:  # a crash is told twice, as a panic and as a shutdown
            self.ending, self.ending_guessed = cause, False
            self.guest = ENDED_AS[cause]
            self.migration.interrupt()  # what has ended is not worth moving
            self.on_end()

    def _tell(self) -> None:
        # While a domain is on its way, QEMU pauses and resumes it, which is part of what was asked for.
        if self.role is Role.OWN and not self._asked:
            self.on_change()
