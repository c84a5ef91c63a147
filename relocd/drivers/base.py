"""The contract between relocd and a hypervisor.

A driver knows one hypervisor. It starts domains, lists them and moves their state in and out through a stream
descriptor; it knows nothing of peers, policy or the journal. The same contract tests (``tests/contracts``) run on
every driver.

All ``async`` methods are awaited as coroutines of Twisted Deferreds in the reactor thread and must not block it.
Every failure of the hypervisor is raised as :class:`relocd.errors.DriverError`.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol
from uuid import UUID

from attrs import frozen

from relocd.config import Config
from relocd.model import CpuWords, DomainConfig, DomainState, DomainStatus, HypervisorFacts, Load, Progress
from relocd.pages.stream_format import StreamFormat


@frozen
class DriverPaths:
    """Where a driver may keep things. ``state`` outlives a reboot of the host, ``run`` does not.

    ``boot`` is the store of kernels and ramdisks by content: a file there is named by its lower-case hex SHA-256.
    """

    state: Path
    run: Path
    boot: Path
    log: Path


@frozen
class DomainChanged:
    """A domain changed its state without being asked through the driver. ``state`` is None when it is gone."""

    uuid: UUID
    state: DomainState | None
    reason: str = ""


@frozen
class GuestMemory:
    """The main memory of a domain that is being received, as a part of a file that can be written.

    ``block`` is what the hypervisor's stream calls it. Pages of this block that are written into the file, from
    ``begin`` on, need not be in the stream. The rest of the file is the hypervisor's own: nobody may write there.
    Whoever is given this owns the descriptor and must close it.
    """

    block: str
    begin: int
    size_bytes: int
    descriptor: int


class Outgoing(Protocol):
    """One domain on its way out. Whatever fails, ``cancel`` brings it back to what it was."""

    def require(self, *, live: bool) -> None:
        """Raise DriverError, with the way out, if the domain cannot leave like this at all. Nothing is touched."""

    @property
    def channels_max(self) -> int:
        """Over how many channels, beside its main stream, this domain can leave; 0 for none. Blocks for a moment."""

    async def start(
        self, *, live: bool, downtime_limit_ms: int, may_throttle: bool = False, channels: int = 0
    ) -> socket.socket:
        """Begin to stream the domain and return this side's end of the stream (both directions, blocking mode).

        Not live: the domain is paused first. The caller owns the socket and must pass it on or close it.
        ``may_throttle``: ``adjust`` may be asked to slow the guest down, which some hypervisors must know beforehand.
        With ``channels``, at most ``channels_max``, the hypervisor compresses the domain's memory itself and spreads
        it over so many connections, which ``channels()`` then returns; the target must expect the same number.
        """

    def channels(self) -> Sequence[socket.socket]:
        """This side's ends of the channels, in any order. To be asked once, after ``start``; the caller owns them."""

    async def adjust(self, *, downtime_limit_ms: int, throttle_percent: int = 0) -> None:
        """Change the pause to aim for, and how much of their time the guest's processors lose, while it streams.

        Both hold from now on, for this relocation only. A hypervisor may need some seconds to take them up, and
        gives the processors their time back when the stream ends, however it does. Nothing happens once the domain
        is paused for the switchover, nor where the hypervisor cannot throttle.
        """

    async def progress(self) -> Progress:
        """Counters of the running transfer."""

    async def paused(self) -> None:
        """Return once the domain is paused for the switchover and only the last pages and device state are missing.

        Raises DriverError if the hypervisor gave up before; the domain then runs (or is paused) as it was.
        Raises DriverError, too, if the guest ended by itself, which the message says; ``cancel`` then sees to what
        is to become of such a domain.
        """

    async def switch_over(self) -> None:
        """Let the hypervisor send the last pages and the device state."""

    async def finished(self) -> None:
        """Return once the hypervisor counts its stream as complete and acknowledged; the domain stays paused.

        Raises DriverError if the stream failed; the domain then runs (or is paused) as it was before.
        """

    async def cancel(self) -> None:
        """Give up, at any moment before ``release``, finished or not. Idempotent.

        Afterwards the domain is here as it was before ``start``: running, or paused if it was paused. One that has
        ended meanwhile is not brought back, which is told to the driver's listeners and is no error here.
        """

    async def release(self) -> None:
        """Destroy this side's copy, which the target owns now. Idempotent."""

    @property
    def steerable(self) -> bool:
        """The hypervisor switches over when it is told to, by ``adjust``; one that goes by rules of its own is not
        judged by the rounds that it takes."""

    @property
    def was_paused(self) -> bool:
        """The domain was already paused when the relocation began, so it must arrive paused."""


class Incoming(Protocol):
    """One domain on its way in: built, paused and not reachable by the network until ``resume``."""

    async def prepare(self, disk_roots: tuple[str, ...] = ("/",), channels: int = 0) -> socket.socket:
        """Build the domain, paused and waiting for its stream; return this side's end of it (see Outgoing.start).

        ``channels``, at most those of the driver's facts, is what the source's hypervisor begins with.

        Boot files must be in the store before. Raises DriverError if the hypervisor would open a disk, or something
        that a disk rests on, in none of the directories ``disk_roots``, whatever its name says.
        """

    def memory(self) -> GuestMemory | None:
        """The guest's memory, to place pages in; None if the whole stream is needed. To be asked once, after
        ``prepare``."""

    def channels(self) -> Sequence[socket.socket]:
        """This side's ends of the channels. To be asked once, after ``prepare``; the caller owns them."""

    async def loaded(self) -> None:
        """Return once the hypervisor has loaded the whole stream and could run the domain at once.

        Raises DriverError if it cannot.
        """

    async def resume(self, *, paused: bool) -> None:
        """Make the domain this host's own and run it (or leave it paused), connect its network and announce it."""

    async def discard(self) -> None:
        """Remove every trace of the domain. Idempotent, at any moment before ``resume``."""


class Driver(Protocol):
    """A hypervisor on this host."""

    name: str
    stream_format: StreamFormat
    """What the streams are that it moves a domain's state with."""

    async def start(self) -> None:
        """Probe the hypervisor and take up the domains that run already. Raises DriverError with the way out."""

    async def stop(self) -> None:
        """Let go of everything without touching a domain."""

    def facts(self) -> HypervisorFacts:
        """What the hypervisor offers; fixed after ``start``."""

    async def memory_free_mib(self) -> int | None:
        """Memory that is left for domains, in MiB, where a hypervisor gives it away; None: it is the system's."""

    def list(self) -> Sequence[DomainStatus]:
        """All domains of this host, incoming and outgoing included, by id."""

    def get(self, uuid: UUID) -> DomainStatus | None:
        """One domain."""

    async def cpu_words(self, config: DomainConfig) -> CpuWords:
        """What CPUID tells this domain's guest; for a domain that is not here, what it would tell it here.

        Empty where the driver cannot say.
        """

    def disk_in_use(self, path: str) -> bool | None:
        """Whether a hypervisor of this kind holds a disk, here or elsewhere; None if that cannot be seen. Blocks."""

    async def refresh(self) -> None:
        """Look at the domains anew: somebody else may have paused one, which not every hypervisor tells."""

    def subscribe(self, listener: Callable[[DomainChanged], None]) -> None:
        """Have ``listener`` called, in the reactor thread, for each change that nobody asked this driver for."""

    async def create(self, config: DomainConfig, *, paused: bool = False) -> DomainStatus:
        """Start a domain; returns when it runs (or is paused).

        Empty ``machine``, ``cpu`` and ``accelerator`` are fixed; boot files are put in the store.
        """

    async def pause(self, uuid: UUID) -> None: ...

    async def unpause(self, uuid: UUID) -> None: ...

    async def shutdown(self, uuid: UUID) -> None:
        """Ask the guest to power off; returns when asked."""

    async def reboot(self, uuid: UUID) -> None:
        """Ask the guest to restart; returns when asked."""

    async def destroy(self, uuid: UUID) -> None:
        """Stop the domain at once and remove what it used. Returns when it is gone."""

    def console_path(self, uuid: UUID) -> Path:
        """The unix stream socket of the domain's console.

        What it says is kept in the log directory, in ``console-UUID.log``, up to the limit of the configuration.
        """

    async def measure(self, uuid: UUID) -> Load:
        """Sample for some seconds what a domain does to its memory. Its guest does not notice.

        Raises BadState for a domain that is being relocated.
        """

    def outgoing(self, uuid: UUID) -> Outgoing:
        """A handle to send a domain out; also for one that a former daemon began to send."""

    def incoming(self, config: DomainConfig) -> Incoming:
        """A handle to receive a domain; also for one that a former daemon began to receive (same UUID)."""


DriverFactory = Callable[[Config, DriverPaths], Driver]
