"""What outlives a driver: the domains of one host, and what it was told to get wrong."""

from __future__ import annotations

import enum
from collections import Counter
from pathlib import Path
from uuid import UUID

from attrs import define, field

from relocd.drivers.memory.guest import Guest
from relocd.drivers.memory.transfer import Transfer
from relocd.errors import DriverError
from relocd.model import DomainConfig, DomainState, DomainStatus


class Step(enum.StrEnum):
    """Where a host can be told to fail."""

    CREATE = "create"
    PREPARE = "prepare"
    LOAD = "load"
    START = "start"
    STREAM = "stream"  # the source's stream breaks off before the domain is paused
    SWITCH_OVER = "switch-over"
    FINISH = "finish"  # the source's stream breaks off after the switchover
    RESUME = "resume"
    CANCEL = "cancel"
    RELEASE = "release"
    DISCARD = "discard"


class Role(enum.StrEnum):
    """Whose the domain is, as far as this hypervisor was told."""

    OWN = "own"
    OUTGOING = "outgoing"
    INCOMING = "incoming"


@define(eq=False)
class MemoryDomain:
    """One domain. ``reachable``: its network is connected."""

    config: DomainConfig
    id: int
    role: Role
    guest: Guest
    was_paused: bool = False
    reachable: bool = False
    transfer: Transfer | None = None

    @property
    def state(self) -> DomainState:
        """As lists show it."""
        if self.role is Role.INCOMING:
            return DomainState.INCOMING
        if self.guest.running:
            return DomainState.RUNNING
        return DomainState.OUTGOING if self.role is Role.OUTGOING else DomainState.PAUSED

    def status(self) -> DomainStatus:
        """A snapshot."""
        return DomainStatus(self.config, self.id, self.state, cpu_time_s=self.guest.counter_ms / 1000)


@define(eq=False)
class Host:
    """One host. ``faults`` says how often a step still fails."""

    domains: dict[UUID, MemoryDomain] = field(factory=dict)
    faults: Counter[Step] = field(factory=Counter)
    last_id: int = 0

    def running(self) -> set[UUID]:
        """The domains whose guests run at this moment."""
        return {uuid for uuid, domain in self.domains.items() if domain.guest.running}

    def fail(self, step: Step, times: int = 1) -> None:
        """Have a step fail, so many times."""
        self.faults[step] += times

    def check(self, step: Step) -> None:
        """Raise DriverError if this step was told to fail."""
        if self.faults[step] > 0:
            self.faults[step] -= 1
            raise DriverError(f"the hypervisor was told to fail at {step.value}")


_hosts: dict[Path, Host] = {}


def host_at(run_dir: Path) -> Host:
    """The host whose daemon has this run directory."""
    return _hosts.setdefault(run_dir, Host())


def forget_hosts() -> None:
    """Switch all hosts off, between tests."""
    _hosts.clear()
