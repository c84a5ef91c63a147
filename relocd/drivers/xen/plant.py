"""What a domain uses on this host beside Xen itself: its record, its directory, its logs; and the means to act."""

from __future__ import annotations

import shutil
from collections.abc import Container
from pathlib import Path
from uuid import UUID

from relocd.drivers.base import DriverPaths
from relocd.drivers.qemu import logs
from relocd.drivers.worker import Worker
from relocd.drivers.xen.store import Record, Store
from relocd.drivers.xen.xl import Xl, reason
from relocd.drivers.xen.xlconfig import xl_config
from relocd.host import bootstore

_TAIL_BYTES = 8192


class Plant:
    """The means of one daemon."""

    def __init__(self, paths: DriverPaths) -> None:
        self.paths = paths
        self.xl = Xl()
        self.worker = Worker("xen")
        self._records = Worker("records")
        self._store = Store(paths.state)

    def open(self) -> None:
        """Make the directories."""
        for directory in (self.paths.run / "domains", self.paths.boot, self.paths.log):
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)

    def close(self) -> None:
        """Let go of everything; domains go on."""
        self.xl.close()
        self.worker.stop()
        self._records.stop()

    def records(self) -> list[Record]:
        """What was known of domains when the last daemon ended. Blocks."""
        return list(self._store.load())

    async def next_id(self) -> int:
        """An id that no domain of this host has had."""
        return await self._records.run(self._store.next_id)

    async def save(self, record: Record) -> None:
        """Write a record down; it is on disk when this returns."""
        await self._records.run(self._store.save, record)

    async def write_config(self, record: Record, name: str) -> Path:
        """The file that tells xl of a domain. Raises DriverError if a boot file is not in the store."""
        await self.worker.run(bootstore.require, self.paths.boot, record.config)
        path = self.directory(record.uuid) / "domain.cfg"
        text = xl_config(record.config, str(self.paths.boot), name)
        await self.worker.run(_write, path, text)
        return path

    async def remove(self, uuid: UUID, *, logs_too: bool) -> None:
        """Remove what a domain used that is gone. Idempotent."""
        await self.worker.run(self._remove_files, uuid, logs_too)
        await self._records.run(self._store.remove, uuid)

    async def sweep(self, used: Container[str]) -> None:
        """Remove directories and old logs that no domain uses."""
        await self.worker.run(self._sweep, used)

    async def bound_logs(self, uuid: UUID, limit_bytes: int) -> None:
        """Keep both logs of a domain within bounds."""
        for path in (self.console_log(uuid), self.xl_log(uuid)):
            await self.worker.run(logs.bound, path, limit_bytes)

    def directory(self, uuid: UUID) -> Path:
        """Where a domain's sockets and its keeper's story are."""
        return self.paths.run / "domains" / str(uuid)

    def console_path(self, uuid: UUID) -> Path:
        """The console's socket."""
        return self.directory(uuid) / "console.sock"

    def console_log(self, uuid: UUID) -> Path:
        """What a domain's console said."""
        return logs.console_log(self.paths.log, uuid)

    def xl_log(self, uuid: UUID) -> Path:
        """What xl said about a domain's relocations."""
        return self.paths.log / f"xl-{uuid}.log"

    def complaint(self, uuid: UUID) -> str:
        """The last that xl complained of; empty if nothing. Blocks for a short read."""
        try:
            with self.xl_log(uuid).open("rb") as file:
                file.seek(max(0, self.xl_log(uuid).stat().st_size - _TAIL_BYTES))
                text = file.read().decode(errors="replace")
        except OSError:
            return ""
        told = [line for line in text.splitlines() if "error" in line.lower()]
        return reason("\n".join(told)) if told else ""

    def _remove_files(self, uuid: UUID, logs_too: bool) -> None:
        shutil.rmtree(self.directory(uuid), ignore_errors=True)
        if logs_too:
            logs.remove(self.paths.log, uuid)
            self.xl_log(uuid).unlink(missing_ok=True)

    def _sweep(self, used: Container[str]) -> None:
        for directory in (self.paths.run / "domains").iterdir():
            if directory.name not in used:
                shutil.rmtree(directory, ignore_errors=True)
        logs.sweep(self.paths.log, used)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.write_text(text)
