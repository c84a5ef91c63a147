"""The journal: what was decided, on disk before anything is done because of it.

One SQLite database a host, in WAL mode with ``synchronous=FULL``: a write that returned survives a crash of the host.
All access runs in one thread of its own, since a disk may take its time and the reactor must not wait for it.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar
from uuid import UUID

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.python.failure import Failure as TwistedFailure

from relocd.domain.record import from_sxp, to_sxp
from relocd.errors import ConfigError, JournalError
from relocd.handover.record import Mark, Record, Role
from relocd.sxp import dumps, parse_one

#: Written to ``PRAGMA user_version``; a journal of a later version is not touched.
SCHEMA_VERSION = 1

_SCHEMA = """
create table if not exists relocation (
    id text not null, role text not null, domain text not null, domain_uuid text not null, live integer not null,
    peer_host text not null, peer_port integer not null, token text not null, was_paused integer not null,
    mark text not null, began_s real not null, changed_s real not null, outcome text not null,
    primary key (id, role)
) without rowid;
"""
_COLUMNS = "id, role, domain, live, peer_host, peer_port, token, was_paused, mark, began_s, outcome"

T = TypeVar("T")


class Journal:
    """Open or create the journal at ``path``. Raises JournalError with the way out if it is damaged or too new."""

    def __init__(self, path: Path, reactor: IReactorFromThreads) -> None:
        self._path = path
        self._reactor = reactor
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="journal")
        self._db = self._thread.submit(self._open).result()

    def _open(self) -> sqlite3.Connection:
        try:
            db = sqlite3.connect(self._path, isolation_level=None)
            db.execute("pragma journal_mode = wal")
            db.execute("pragma synchronous = full")
            (version,) = db.execute("pragma user_version").fetchone()
            if version > SCHEMA_VERSION:
                raise JournalError(
                    f"{self._path} was written by a later relocd (schema {version}, known here: {SCHEMA_VERSION})",
                    hint="Install that version again, or move the file away if no relocation is under way.",
                )
            ((verdict,),) = db.execute("pragma quick_check(1)").fetchall()
            if verdict != "ok":
                raise sqlite3.DatabaseError(verdict)
            db.executescript(_SCHEMA)
            db.execute(f"pragma user_version = {SCHEMA_VERSION}")
        except sqlite3.Error as error:
            raise JournalError(
                f"cannot use the journal {self._path}: {error}",
                hint="Check disk space and permissions. If the file is damaged, look on the peers which domains run "
                "where, then move it away; relocd starts with an empty one.",
            ) from error
        return db

    def close(self) -> None:
        """Close the database; nothing can be written afterwards."""
        self._thread.submit(self._db.close).result()
        self._thread.shutdown()

    def write(self, record: Record) -> Deferred[None]:
        """Insert or replace a record; fires when it is on disk, fails with JournalError if it is not."""
        row = _to_row(record)
        return self._run(lambda: self._replace(row))

    def _replace(self, row: tuple[object, ...]) -> None:
        self._db.execute(
            f"insert or replace into relocation ({_COLUMNS}, domain_uuid, changed_s) "
            "values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            row,
        )

    def find(self, relocation: UUID, role: Role) -> Deferred[Record | None]:
        """One record."""
        return self._run(lambda: self._one(relocation, role))

    def _one(self, relocation: UUID, role: Role) -> Record | None:
        where = f"select {_COLUMNS} from relocation where id = ? and role = ?"
        row = self._db.execute(where, (str(relocation), role.value)).fetchone()
        return None if row is None else _from_row(row)

    def history(self, limit: int) -> Deferred[list[Record]]:
        """The latest records, newest first."""
        return self._run(lambda: self._history(limit))

    def _history(self, limit: int) -> list[Record]:
        query = f"select {_COLUMNS} from relocation order by began_s desc limit ?"
        return [_from_row(row) for row in self._db.execute(query, (limit,))]

    def open_records(self) -> Deferred[list[Record]]:
        """All records that are not final, oldest first."""
        return self._run(self._open_records)

    def _open_records(self) -> list[Record]:
        final = [mark.value for mark in Mark if mark.final]
        marks = ",".join("?" * len(final))
        query = f"select {_COLUMNS} from relocation where mark not in ({marks}) order by began_s"
        records = [_from_row(row) for row in self._db.execute(query, final)]
        return [r for r in records if not (r.mark is Mark.OWNED and r.outcome)]

    def _run(self, work: Callable[[], T]) -> Deferred[T]:
        done: Deferred[T] = Deferred()

        def attempt() -> None:
            try:
                result = work()
            except sqlite3.Error as error:
                problem = JournalError(f"the journal {self._path} failed: {error}", hint="Check disk space.")
                self._reactor.callFromThread(done.errback, TwistedFailure(problem))
            except Exception:  # noqa: BLE001 - whatever it is, it belongs to the caller
                self._reactor.callFromThread(done.errback, TwistedFailure())
            else:
                self._reactor.callFromThread(done.callback, result)

        self._thread.submit(attempt)
        return done


def _to_row(record: Record) -> tuple[object, ...]:
    return (
        str(record.relocation),
        record.role.value,
        dumps(to_sxp(record.domain)),
        int(record.live),
        record.peer_host,
        record.peer_port,
        record.token,
        int(record.was_paused),
        record.mark.value,
        record.began_s,
        json.dumps(record.outcome),
        str(record.domain.uuid),
        time.time(),
    )


def _from_row(row: tuple[str, str, str, int, str, int, str, int, str, float, str]) -> Record:
    identity, role, domain, live, host, port, token, was_paused, mark, began_s, outcome = row
    try:
        config = from_sxp(parse_one(domain, source=f"journal record {identity}"))
    except ConfigError as error:
        raise JournalError(f"the journal holds a record that cannot be read: {error}") from error
    return Record(
        UUID(identity),
        Role(role),
        config,
        bool(live),
        host,
        port,
        token,
        bool(was_paused),
        Mark(mark),
        began_s,
        json.loads(outcome),
    )
