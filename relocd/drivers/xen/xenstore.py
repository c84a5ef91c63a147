"""A small client of the xenstore: reads values and watches paths (docs/misc/xenstore.txt of Xen).

A message is four little-endian numbers (type, request, transaction, length) and so many bytes.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from pathlib import Path

from twisted.internet.defer import Deferred

from relocd.drivers.aio import awaited, background
from relocd.errors import DriverError

SOCKET = Path("/run/xenstored/socket")

_READ, _WATCH, _WATCH_EVENT, _ERROR = 2, 4, 15, 16  # xs_wire.h, enum xsd_sockmsg_type
_HEADER = struct.Struct("<IIII")
_PAYLOAD_MAX_BYTES = 4096
_CONNECT_S = 10.0


class Xenstore:
    """One connection; ``on_event`` is called for each event of a watch."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, on_event: Callable[[], None]
    ) -> None:
        self._reader, self._writer = reader, writer
        self._on_event = on_event
        self._answers: dict[int, asyncio.Future[bytes]] = {}
        self._last = 0
        self._listening: Deferred[None] = background(self._listen(), "listening to the xenstore")

    @classmethod
    async def connect(cls, on_event: Callable[[], None], path: Path = SOCKET) -> Xenstore:
        """Raises DriverError if there is no xenstored."""
        try:
            connecting = asyncio.wait_for(asyncio.open_unix_connection(str(path)), _CONNECT_S)
            reader, writer = await awaited(connecting)
        except (OSError, TimeoutError) as error:
            raise DriverError(
                f"no xenstored answers at {path}: {error}",
                hint="is this the control domain of a Xen host, and does its service 'xen' run?",
            ) from error
        return cls(reader, writer, on_event)

    async def read(self, path: str) -> str:
        """The value at a path. Raises DriverError if there is none."""
        return (await self._ask(_READ, path)).decode(errors="replace")

    async def watch(self, path: str) -> None:
        """Have ``on_event`` called whenever something changes at or below the path, and once at first."""
        await self._ask(_WATCH, f"{path}\0{path}")

    def close(self) -> None:
        """Hang up. Whoever waits for an answer gets a DriverError."""
        self._listening.cancel()
        self._writer.close()
        self._fail()

    async def _ask(self, kind: int, text: str) -> bytes:
        self._last += 1
        payload = text.encode() + b"\0"
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._answers[self._last] = answer
        self._writer.write(_HEADER.pack(kind, self._last, 0, len(payload)) + payload)
        return await awaited(answer)

    async def _listen(self) -> None:
        try:
            while True:
                kind, request, _, length = _HEADER.unpack(
                    await awaited(self._reader.readexactly(_HEADER.size))
                )
                if length > _PAYLOAD_MAX_BYTES:
                    raise DriverError("the xenstore announces too long an answer")
                self._take(kind, request, await awaited(self._reader.readexactly(length)))
        except (OSError, EOFError):
            pass  # it has ended, as whoever asks next is told
        finally:
            self._fail()

    def _take(self, kind: int, request: int, payload: bytes) -> None:
        if kind == _WATCH_EVENT:
            self._on_event()
            return
        answer = self._answers.pop(request, None)
        if answer is None or answer.done():
            return
        if kind == _ERROR:
            answer.set_exception(DriverError(f"the xenstore refuses: {payload.rstrip(bytes(1)).decode()}"))
        else:
            answer.set_result(payload)

    def _fail(self) -> None:
        answers, self._answers = self._answers, {}
        for answer in answers.values():
            if not answer.done():
                answer.set_exception(DriverError("the connection to the xenstore is lost"))
