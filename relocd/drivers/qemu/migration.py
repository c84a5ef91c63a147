"""The migration of one QEMU as its events tell it (qapi/migration.json), and how it is set up. For both
sides.

The settings are what the hand-over rests on: with ``return-path`` the source fails when the target cannot
load, and ``pause-before-switchover`` lets the source wait for us before the last pages. No multifd and no
xbzrle: lanes and zstd take their place, and they would change the stream.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping
from typing import Any

from relocd.drivers.aio import awaited
from relocd.drivers.qemu.qmp import Monitor, MonitorLost
from relocd.drivers.qemu.sockets import stream_pair

#: QEMU's MigrationStatus values after which nothing more comes.
FINAL = frozenset({"completed", "failed", "cancelled"})
#: Those before anything began.
IDLE = frozenset({"", "none"})

SOURCE_CAPABILITIES = ("events", "return-path", "pause-before-switchover")
TARGET_CAPABILITIES = ("events", "return-path", "late-block-activate")


class Migration:
    """Follows one QEMU's migration. Make it before anything can happen; reactor thread only."""

    def __init__(self, monitor: Monitor, name: str) -> None:
        self.status = ""
        self.round = 0
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
        self.round = 0

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
            self.round = int(data["pass"])

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


async def prepare(monitor: Monitor, capabilities: tuple[str, ...]) -> None:
    """Switch the capabilities on that both sides need."""
    states = [{"capability": name, "state": True} for name in capabilities]
    await monitor.execute("migrate-set-capabilities", {"capabilities": states})


async def attach_stream(monitor: Monitor, name: str) -> socket.socket:
    """Give QEMU one end of a new stream, as ``fd:name``, and return the other one."""
    ours, theirs = stream_pair()
    try:
        await monitor.send_descriptor(theirs.fileno(), name)
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
    return ours
