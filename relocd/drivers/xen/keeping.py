"""The daemon's side of a keeper: starts one, or finds that of a former daemon, hears its story, commands it."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path

from relocd.drivers.aio import OneShot, awaited, background
from relocd.drivers.qemu.process import Process, in_scope, spawn
from relocd.drivers.qemu.sockets import check_length, stream_pair
from relocd.drivers.worker import Worker
from relocd.drivers.xen.keeper import SOCKET, STORY
from relocd.errors import DriverError

_CONNECT_TRIES = 600
_CONNECT_S = 0.05

#: After one of these a keeper has nothing more to say.
FINAL = frozenset({"home", "released", "failed", "loaded"})


class Keeping:
    """One keeper as the daemon knows it; in the reactor thread. ``on_line`` is called after each line of it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.words: dict[str, str] = {}
        self.round = self.stream_bytes = 0
        self.ended = OneShot()
        self.on_line: Callable[[], None] = lambda: None
        self._writer: asyncio.StreamWriter | None = None
        self._process: Process | None = None
        self._changed: list[asyncio.Future[None]] = []

    @classmethod
    async def start(
        cls,
        worker: Worker,
        directory: Path,
        mode: str,
        subject: str,
        *,
        log: Path,
        unit: str,
        was_paused: bool = False,
    ) -> tuple[Keeping, socket.socket]:
        """Start a keeper, in a session and a scope of its own; also this side's end of the stream."""
        for name in (SOCKET, STORY):
            (directory / name).unlink(missing_ok=True)
        check_length(directory / SOCKET)
        ours, theirs = stream_pair()
        words = [sys.executable, "-P", "-m", "relocd.drivers.xen.keeper", mode, str(directory), subject]
        argv = in_scope([*words, *(["paused"] if was_paused else [])], unit=unit, environment=os.environ)
        keeping = cls(directory)
        try:
            with theirs:
                identity = await worker.run(spawn, argv, log=log, descriptors=[theirs.fileno()])
            keeping._process = Process(identity)  # which reaps it
            await keeping._connect(_CONNECT_TRIES)
        except BaseException:
            ours.close()
            raise
        return keeping, ours

    @classmethod
    async def find(cls, directory: Path) -> Keeping | None:
        """The keeper that a former daemon started, or what one that has ended wrote down; None if there was none."""
        keeping = cls(directory)
        try:
            await keeping._connect(1)
        except DriverError:
            if not (directory / STORY).exists():
                return None
            for line in (directory / STORY).read_text().splitlines():
                keeping._take(line)
            keeping._end()
        return keeping

    def said(self, *words: str) -> str:
        """The first of these words that it has said; empty if none."""
        return next((word for word in words if word in self.words), "")

    async def until(self, *words: str) -> str:
        """Wait until it has said one of these words, or has ended: then empty."""
        while not self.said(*words) and not self.ended.fired:
            change: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._changed.append(change)
            await awaited(change)
        return self.said(*words)

    def command(self, word: str) -> None:
        """Tell it what to do. Nothing happens if it has ended."""
        if self._writer is not None:
            self._writer.write(f"{word}\n".encode())

    def let_go(self) -> None:
        """Hang up; it goes on."""
        self.on_line = lambda: None
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    async def _connect(self, tries: int) -> None:
        """Its interpreter takes its time to start, on a busy host above all."""
        for attempt in range(tries):
            try:
                reader, self._writer = await awaited(
                    asyncio.open_unix_connection(str(self.directory / SOCKET))
                )
            except OSError:
                if attempt + 1 < tries:
                    await awaited(asyncio.sleep(_CONNECT_S))
            else:
                background(self._listen(reader), "listening to a keeper")
                return
        raise DriverError("the process that is to keep xl did not start")

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        try:
            while line := await awaited(reader.readline()):
                self._take(line.decode(errors="replace").strip())
                self._wake()
        except OSError:
            pass
        finally:
            self._end()

    def _take(self, line: str) -> None:
        word, _, rest = line.partition(" ")
        if word == "progress":
            round_, _, size = rest.partition(" ")
            self.round, self.stream_bytes = int(round_), int(size)
        else:
            self.words[word] = rest

    def _end(self) -> None:
        self.ended.fire()
        self._wake()

    def _wake(self) -> None:
        changed, self._changed = self._changed, []
        for change in changed:
            if not change.done():
                change.set_result(None)
        self.on_line()
