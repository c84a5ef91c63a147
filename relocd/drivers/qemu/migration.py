"""The migration of one QEMU as its events tell it (qapi/migration.json), and how it is set up. For both
sides.

The settings are what the hand-over rests on: with ``return-path`` the source fails when the target cannot
load, and ``pause-before-switchover`` lets the source wait for us before the last pages. Either QEMU streams all by
one connection, and lanes and the page stream's own compression do the rest; or, where both hosts have agreed on
channels, its multifd does (docs/adr/0007).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Any

from twisted.internet.defer import Deferred

from relocd.drivers.aio import awaited
from relocd.drivers.qemu.qmp import Monitor, MonitorLost
from relocd.errors import DriverError

#: QEMU's MigrationStatus values after which nothing more comes.
FINAL = frozenset({"completed", "failed", "cancelled"})
#: Those before anything began.
IDLE = frozenset({"", "none"})

SOURCE_CAPABILITIES = ("events", "return-path", "pause-before-switchover")
#: Must be set before a migration begins; ``steering`` decides whether it does anything.
AUTO_CONVERGE = "auto-converge"
TARGET_CAPABILITIES = ("events", "return-path", "late-block-activate")
#: For channels; both sides.
_MULTIFD = "multifd"

#: How often what a round begins with is asked for, at most.
_MEASURE_EVERY_S = 0.1


class Migration:
    """Follows one QEMU's migration. Make it before anything can happen; reactor thread only."""

    def __init__(self, monitor: Monitor, name: str) -> None:
        self.status = ""
        self.round = 0
        self.round_bytes = 0
        self._measured_s = 0.0
        self._monitor = monitor
        self._name = name
        self._waiting: list[tuple[frozenset[str], asyncio.Future[str]]] = []
        monitor.listen(self._event)
        monitor.gone.then(self._lost)

    async def refresh(self) -> None:
        """Ask for the state, for a QEMU that a former daemon started."""
        self._advance(str((await self._monitor.execute("query-migrate")).get("status", "")))

    def forget(self) -> None:
        """A new attempt begins: what the former one ended with does not count."""
        self.status = ""
        self.round = self.round_bytes = 0

    async def until(self, *wanted: str) -> str:
        """Wait for one of the states wanted, for the end, or for ``interrupt``; return the state it is in then.

        Who waits for the end alone is not interrupted. Raises MonitorLost.
        """
        enough = FINAL.union(wanted)
        if self.status in enough:
            return self.status
        if self._monitor.gone.fired:
            raise MonitorLost(self._name)
        future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._waiting.append((enough, future))
        return await awaited(future)

    def interrupt(self) -> None:
        """There is no point in waiting for anything but the end."""
        waiting, self._waiting = self._waiting, []
        for enough, future in waiting:
            if enough == FINAL:
                self._waiting.append((enough, future))
            elif not future.done():
                future.set_result(self.status)

    async def error(self) -> str:
        """Why it failed, in QEMU's words; empty if QEMU says nothing."""
        return str((await self._monitor.execute("query-migrate")).get("error-desc", ""))

    def _event(self, event: str, data: Mapping[str, Any]) -> None:
        if event == "MIGRATION":
            self._advance(str(data["status"]))
        elif event == "MIGRATION_PASS":
            self.round, self.round_bytes = int(data["pass"]), 0
            self._measure_soon()

    def _measure_soon(self) -> None:
        """Ask what a round begins with, which QEMU's event does not tell; not each time where rounds are short."""
        now_s = asyncio.get_running_loop().time()
        if now_s - self._measured_s >= _MEASURE_EVERY_S:
            self._measured_s = now_s
            Deferred.fromCoroutine(self._measure(self.round))

    async def _measure(self, number: int) -> None:
        with contextlib.suppress(DriverError):  # whoever waits for the migration hears what is wrong
            answer = await self._monitor.execute("query-migrate")
            if self.round == number:
                self.round_bytes = int(answer.get("ram", {}).get("remaining", 0))

    def _advance(self, status: str) -> None:
        self.status = status
        waiting, self._waiting = self._waiting, []
        for enough, future in waiting:
            if status not in enough:
                self._waiting.append((enough, future))
            elif not future.done():
                future.set_result(status)

    def _lost(self) -> None:
        waiting, self._waiting = self._waiting, []
        for _, future in waiting:
            if not future.done():
                future.set_exception(MonitorLost(self._name))


def steering(downtime_limit_ms: int, throttle_percent: int) -> dict[str, int]:
    """QEMU's parameters for a pause to aim for and a throttling, 0 for none.

    With auto-converge QEMU throttles by itself. It looks between rounds, once a second at most; at every other look
    at which the guest has dirtied more than the threshold, a percentage of what was sent, it goes a step further, up
    to the maximum. So it is kept idle by a maximum of 1 %, and obeys by a first step that leads to the maximum.
    """
    return {
        "downtime-limit": downtime_limit_ms,
        "throttle-trigger-threshold": 1 if throttle_percent else 100,
        "cpu-throttle-initial": throttle_percent or 1,
        "cpu-throttle-increment": 99,
        "max-cpu-throttle": throttle_percent or 1,
    }


def channel_parameters(channels: int) -> dict[str, object]:
    """QEMU's parameters for so many channels; the target must have the same. Level 1 of zstd is its default."""
    return {"multifd-channels": channels, "multifd-compression": "zstd"} if channels else {}


async def prepare(
    monitor: Monitor,
    capabilities: tuple[str, ...],
    channels: int,
    parameters: Mapping[str, object] | None = None,
    switches: Mapping[str, bool] | None = None,
) -> None:
    """Switch the capabilities on that both sides need, and others on or off; multifd is on if there are channels."""
    states: list[dict[str, object]] = [{"capability": name, "state": True} for name in capabilities]
    switched = {**(switches or {}), _MULTIFD: channels > 0}
    states += [{"capability": name, "state": state} for name, state in switched.items()]
    await monitor.execute("migrate-set-capabilities", {"capabilities": states})
    wanted = {**(parameters or {}), **channel_parameters(channels)}
    if wanted:
        await monitor.execute("migrate-set-parameters", wanted)
