"""The taps of this daemon's domains, made and removed in threads."""

from __future__ import annotations

from collections.abc import Iterable

from relocd.drivers.worker import Worker
from relocd.errors import DriverError
from relocd.model import DomainConfig
from relocd.net.names import instance_tag, tap_mac, tap_name, tap_prefix
from relocd.net.tap import Links


class Network:
    """Two netlink connections, each in its own thread.

    Deleting a device takes tens of milliseconds; a domain that waits to be connected at the end of its relocation
    must not queue behind that.
    """

    def __init__(self, run_dir: str) -> None:
        self._tag = instance_tag(run_dir)
        self._workers = (Worker("taps"), Worker("connect"))
        self._links: tuple[Links, Links] | None = None

    async def open(self) -> None:
        """Connect to the kernel."""
        first, second = [await worker.run(Links) for worker in self._workers]
        self._links = first, second

    async def close(self) -> None:
        """Let go; devices stay as they are."""
        if self._links is not None:
            for worker, links in zip(self._workers, self._links, strict=True):
                await worker.run(links.close)
            self._links = None
        for worker in self._workers:
            worker.stop()

    def taps(self, config: DomainConfig) -> tuple[str, ...]:
        """Names of a domain's taps, in the order of its interfaces."""
        return tuple(tap_name(self._tag, config.uuid, index) for index in range(len(config.vifs)))

    async def create(self, config: DomainConfig) -> tuple[str, ...]:
        """Make a domain's taps, down. Raises DriverError; what was made by then is for ``remove``."""
        names = self.taps(config)
        for name, vif in zip(names, config.vifs, strict=True):
            create = self._open_links[0].create_tap
            await self._workers[0].run(create, name, mac=tap_mac(vif.mac), bridge=vif.bridge)
        return names

    async def connect(self, config: DomainConfig) -> None:
        """Let frames pass: the guest can be reached from now on."""
        if config.vifs:
            await self._workers[1].run(self._open_links[1].set_up, self.taps(config))

    async def remove(self, config: DomainConfig) -> None:
        """Remove a domain's taps. Idempotent."""
        if config.vifs:
            await self._workers[0].run(self._open_links[0].delete, self.taps(config))

    async def sweep(self, living: Iterable[DomainConfig]) -> None:
        """Remove all taps of this daemon that belong to none of the domains."""
        used = {name for config in living for name in self.taps(config)}
        links = self._open_links[0]
        found = await self._workers[0].run(links.names, tap_prefix(self._tag))
        await self._workers[0].run(links.delete, [name for name in found if name not in used])

    @property
    def _open_links(self) -> tuple[Links, Links]:
        if self._links is None:
            raise DriverError("the driver is not started")
        return self._links
