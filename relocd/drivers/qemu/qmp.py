"""The QMP connection to one QEMU. The only module that touches ``qemu.qmp``, whose interface is not stable
yet.

Commands are coroutines that await Deferreds, events are callbacks in the reactor thread; both need Twisted's
asyncio reactor. The connection is made when QEMU starts and stays, so that nothing has to be set up between a
commit and the command that resumes the domain.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from qemu.qmp import ConnectError, EventListener, ExecuteError, QMPClient, QMPError, Runstate
from qemu.qmp.message import Message
from qemu.qmp.qmp_client import NegotiationError
from twisted.logger import Logger

from relocd.drivers.aio import OneShot, awaited
from relocd.errors import DriverError

COMMAND_TIMEOUT_S = 15.0
"""QEMU answers within milliseconds, but for ``cont`` on slow storage (it opens the disks for writing)."""

_NEGOTIATIONS = 5

Listener = Callable[[str, Mapping[str, Any]], None]

# A lost connection is told to our own listeners; the library would log it as an error, with a traceback.
logging.getLogger("qemu.qmp").setLevel(logging.CRITICAL)


class CommandRefused(DriverError):
    """QEMU understood a command and did not do it. ``error_class`` is QMP's, mostly ``GenericError``."""

    def __init__(self, message: str, error_class: str) -> None:
        super().__init__(message)
        self.error_class = error_class


class MonitorLost(DriverError):
    """The connection is gone, as a rule because QEMU is. Whether a command was carried out is not known."""

    def __init__(self, name: str) -> None:
        super().__init__(f"QEMU of {name} is gone or does not answer")


class _Relay(EventListener):
    """Hands events on as they are read, in order with the answers.

    The library's own listener would keep every event for ever, and a guest can cause as many as it likes.
    """

    def __init__(self, sink: Callable[[Message], None]) -> None:
        super().__init__()
        self._sink = sink

    async def put(self, event: Message) -> None:
        self._sink(event)


class Monitor:
    """One QMP connection. Make it with :meth:`connect`; use it in the reactor thread.

    ``gone`` fires once the connection has ended and everything that QEMU said before has been handed on.
    """

    _log = Logger()

    def __init__(self, name: str) -> None:
        self.gone = OneShot()
        self._name = name
        self._client = QMPClient(name)
        self._client.events.event_filter = lambda _event: False
        self._client.register_listener(_Relay(self._dispatch))
        self._listeners: list[Listener] = []
        self._closing = asyncio.Event()
        self._watching: asyncio.Future[None] | None = None

    @classmethod
    def absent(cls, name: str) -> Monitor:
        """What stands for the connection to a QEMU that does not answer: every command raises MonitorLost."""
        monitor = cls(name)
        monitor.gone.fire()
        return monitor

    @classmethod
    async def connect(cls, path: Path, *, name: str, timeout_s: float = COMMAND_TIMEOUT_S) -> Monitor:
        """Connect to QEMU's socket and leave its negotiation mode. Raises MonitorLost if that fails."""
        monitor = cls(name)
        try:
            await awaited(asyncio.wait_for(monitor._negotiate(path), timeout_s))
        except (QMPError, OSError, EOFError, TimeoutError) as error:
            raise MonitorLost(name) from error
        monitor._watching = asyncio.ensure_future(monitor._watch())
        return monitor

    async def execute(
        self,
        command: str,
        arguments: Mapping[str, object] | None = None,
        *,
        timeout_s: float = COMMAND_TIMEOUT_S,
    ) -> Any:
        """Run a command and return what QEMU answers.

        Raises CommandRefused, MonitorLost, or DriverError when no answer comes within ``timeout_s``.
        """
        if self.gone.fired:
            raise MonitorLost(self._name)
        try:
            return await awaited(asyncio.wait_for(self._client.execute(command, arguments), timeout_s))
        except ExecuteError as error:
            raise CommandRefused(f"QEMU refused {command}: {error}", error.error_class) from error
        except TimeoutError as error:
            raise DriverError(
                f"QEMU of {self._name} did not answer {command} within {timeout_s:g} s"
            ) from error
        except (QMPError, OSError, EOFError) as error:
            raise MonitorLost(self._name) from error

    async def send_descriptor(self, descriptor: int, name: str) -> None:
        """Give QEMU a duplicate of ``descriptor``, to be used as ``fd:name``."""
        if self.gone.fired:
            raise MonitorLost(self._name)
        try:
            self._client.send_fd_scm(descriptor)
        except (QMPError, OSError) as error:
            raise MonitorLost(self._name) from error
        await self.execute("getfd", {"fdname": name})

    def listen(self, listener: Listener) -> None:
        """Have ``listener(event, data)`` called for each event of QEMU."""
        self._listeners.append(listener)

    async def close(self) -> None:
        """End the connection; QEMU goes on. Whoever waits for something learns that it is lost. Idempotent."""
        self._listeners.clear()
        self._closing.set()
        if self._watching is not None:
            await awaited(asyncio.shield(self._watching))

    async def _negotiate(self, path: Path) -> None:
        """Connect, again if an event comes before the answer to the first command, which the library takes amiss."""
        for attempts_left in reversed(range(_NEGOTIATIONS)):
            try:
                return await self._client.connect(str(path))
            except ConnectError as error:
                if not attempts_left or not isinstance(error.exc, NegotiationError):
                    raise
        return None

    def _dispatch(self, event: Message) -> None:
        data = event.get("data")
        for listener in tuple(self._listeners):
            try:
                listener(str(event["event"]), data if isinstance(data, Mapping) else {})
            except Exception:  # noqa: BLE001 - one listener's bug must not cost the others their events
                self._log.failure("a listener failed on {event}", event=event["event"])

    async def _watch(self) -> None:
        """Keep the connection until QEMU or we end it; only here it is taken down."""
        ends = [asyncio.ensure_future(self._closing.wait()), asyncio.ensure_future(self._broken())]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        for task in ends:
            task.cancel()
        await self._disconnect()
        self.gone.fire()

    async def _broken(self) -> None:
        while self._client.runstate is Runstate.RUNNING:
            await self._client.runstate_changed()

    async def _disconnect(self) -> None:
        # disconnect() raises what ended the connection; that it ended is all that matters here.
        with contextlib.suppress(QMPError, OSError, EOFError):
            await self._client.disconnect()
