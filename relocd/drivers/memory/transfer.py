"""One stream of a guest, out or in, as a task of the event loop; it goes on when the driver stops."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine
from typing import Any

from relocd.drivers.aio import awaited
from relocd.drivers.memory import stream
from relocd.drivers.memory.guest import PAGE_BYTES, Guest
from relocd.errors import DriverError

ACTIVE, PAUSED, COMPLETED, FAILED = "active", "paused", "completed", "failed"

_MAX_ROUNDS = 3
#: What a running guest writes during a round: always the same pages.
DIRTY_PAGES = 16
_RESTLESS_ROUND_S = 0.02  # how long it takes to send what a restless guest has written

Check = Callable[[str], None]


class Transfer:
    """Follow one with ``until``; ``proceed`` lets an outgoing one finish, ``cancel`` and ``break_off`` end it."""

    def __init__(self, guest: Guest, end: socket.socket) -> None:
        end.setblocking(False)
        self.status = ACTIVE
        self.round = 0
        self.round_bytes = 0
        self.error = ""
        self.downtime_limit_ms = 0
        self.throttle_percent = 0
        self._end_reason = "it was cancelled"
        self._guest = guest
        self._socket = end
        self._go = asyncio.Event()
        self._changed = asyncio.Event()  # a new one for each state
        self._task: asyncio.Future[None] | None = None

    @classmethod
    def outgoing(
        cls, guest: Guest, end: socket.socket, *, live: bool, downtime_limit_ms: int, check: Check
    ) -> Transfer:
        """Send ``guest`` into ``end``. ``check`` is called with "stream" and "finish", and may raise."""
        transfer = cls(guest, end)
        transfer.downtime_limit_ms = downtime_limit_ms
        transfer._begin(lambda: transfer._send(live, check))
        return transfer

    @classmethod
    def incoming(cls, guest: Guest, end: socket.socket, *, check: Check) -> Transfer:
        """Fill ``guest`` from ``end``. ``check`` is called with "load", and may raise."""
        transfer = cls(guest, end)
        transfer._begin(lambda: transfer._receive(check))
        return transfer

    def proceed(self) -> None:
        """The last pages may go."""
        self._go.set()

    async def cancel(self) -> None:
        """End it at once, completed or not."""
        if self._task is not None:
            self._task.cancel()
            await awaited(asyncio.wait([self._task]))

    def break_off(self, reason: str) -> None:
        """End it at once, without waiting for that. Whoever follows it is told the reason."""
        self._end_reason = reason
        if self._task is not None:
            self._task.cancel()

    async def until(self, status: str) -> None:
        """Wait for a state. Raises DriverError if the transfer fails instead."""

        async def wait() -> None:
            while self.status not in (status, COMPLETED, FAILED):
                await self._changed.wait()

        await awaited(wait())
        if self.status not in (status, COMPLETED):
            raise DriverError(f"the stream broke off: {self.error}")

    def _begin(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._task = asyncio.ensure_future(self._guarded(work))
        self._task.add_done_callback(self._ended)

    async def _guarded(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        try:
            await work()
        except (DriverError, OSError, EOFError, ValueError) as error:
            self._advance(FAILED, str(error))

    def _ended(self, task: asyncio.Future[None]) -> None:
        """Also of one that was cancelled before it did anything."""
        if task.cancelled():
            self._advance(FAILED, self._end_reason)
        self._socket.close()

    def _advance(self, status: str, error: str = "") -> None:
        self.status, self.error = status, error
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def _send(self, live: bool, check: Check) -> None:
        guest = self._guest
        await stream.send_header(self._write, guest)
        guest.dirty = set(range(len(guest.versions)))
        while live and guest.running and (self.round < _MAX_ROUNDS or not self._fits()):
            self.round += 1
            self.round_bytes = len(guest.dirty) * PAGE_BYTES
            pages, guest.dirty = sorted(guest.dirty), set()
            await stream.send_pages(self._write, guest, pages)
            guest.work(DIRTY_PAGES)
            if not self._fits():
                await asyncio.sleep(_RESTLESS_ROUND_S)
        check("stream")
        guest.pause()
        self._advance(PAUSED)
        await self._go.wait()
        self.round += 1
        pages, guest.dirty = sorted(guest.dirty), set()
        await stream.send_pages(self._write, guest, pages)
        check("finish")
        await stream.send_end(self._write, guest)
        answer = await asyncio.get_running_loop().sock_recv(self._socket, 1)
        if answer != stream.LOADED:
            raise DriverError("the target did not load it")
        self._advance(COMPLETED)

    def _fits(self) -> bool:
        """Would what is left fit into the pause? A throttled guest writes less."""
        needed_ms = self._guest.restless_ms * (100 - self.throttle_percent) / 100
        return needed_ms <= self.downtime_limit_ms

    async def _receive(self, check: Check) -> None:
        reader, writer = await asyncio.open_unix_connection(sock=self._socket)
        try:
            await stream.receive(reader, self._guest)
            check("load")
            self._advance(COMPLETED)
            writer.write(stream.LOADED)
            await writer.drain()
        finally:
            writer.close()

    async def _write(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self._socket, data)
