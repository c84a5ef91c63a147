"""One SQLite database a host, in WAL mode with ``synchronous=FULL``: what was written survives a crash of the host.

All access runs in one thread of its own, since a disk may take its time and the reactor must not wait for it.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar
from uuid import UUID

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.python.failure import Failure as TwistedFailure

from relocd.errors import JournalError
from relocd.handover.record import Mark, Record, Role
from relocd.handover.timeline import Moment
from relocd.journal.rows import (
    MOMENT_COLUMNS,
    RECORD_COLUMNS,
    Row,
    moment_of,
    moment_row,
    record_of,
    record_row,
    seal,
)
from relocd.journal.schema import prepare

#: Ended relocations that are kept, at most; older ones are forgotten when another one ends.
HISTORY_KEPT = 10_000

_FINAL = ", ".join(f"'{mark.value}'" for mark in Mark if mark.final)

_WRITE_RECORD = f"""
    insert or replace into relocation ({RECORD_COLUMNS}, seal, domain_uuid, domain_name, changed_s)
    values ({", ".join("?" * 16)})
"""
_WRITE_MOMENT = (
    f"insert or replace into moment (id, role, number, {MOMENT_COLUMNS}) values (?, ?, ?, ?, ?, ?)"
)
_FORGET_RECORDS = f"""
    delete from relocation where (id, role) in (
        select id, role from relocation where mark in ({_FINAL}) order by began_s desc limit -1 offset ?
    )
"""
_FORGET_MOMENTS = "delete from moment where (id, role) not in (select id, role from relocation)"

#: Size of the header of an SQLite file (sqlite.org/fileformat.html, 1.3).
_HEADER_BYTES = 100

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
            if 0 < _size_bytes(self._path) < _HEADER_BYTES:  # SQLite takes a file of one byte for a new one
                raise sqlite3.DatabaseError("file is not a database")
            db = sqlite3.connect(self._path, isolation_level=None)
            try:
                db.execute("pragma journal_mode = wal")
                db.execute("pragma synchronous = full")
                prepare(db)
            except BaseException:
                db.close()
                raise
        except JournalError as error:
            raise JournalError(f"cannot use the journal {self._path}: {error}", hint=error.hint) from error
        except (sqlite3.Error, OSError) as error:
            raise JournalError(
                f"cannot use the journal {self._path}: {error}",
                hint="Check disk space and permissions. If the file is damaged, look on the peers which domains run "
                "where, then move it away, its -wal and -shm too; relocd starts with an empty one, and 'relocctl "
                "status' shows each domain that was on its way, for you to decide.",
            ) from error
        return db

    def close(self) -> None:
        """Close the database; nothing can be written afterwards."""
        self._thread.submit(self._db.close).result()
        self._thread.shutdown()

    # -- writing ---------------------------------------------------------------------------------------------------

    def write(self, record: Record, moments: Sequence[tuple[int, Moment]] = ()) -> Deferred[None]:
        """Insert or replace a record, with new moments of its timeline, all or nothing.

        Fires when it is on disk, fails with JournalError if it is not.
        """
        identity = str(record.relocation), record.role.value
        values = record_row(record)
        row = (*values, seal(values), str(record.domain.uuid), record.domain.name, time.time())
        rows = [(*identity, number, *moment_row(moment)) for number, moment in moments]
        return self._run(lambda: self._write(row, rows, forget=record.mark.final))

    def _write(self, row: Row, moments: list[Row], *, forget: bool) -> None:
        self._db.execute("begin immediate")
        try:
            self._db.execute(_WRITE_RECORD, row)
            self._db.executemany(_WRITE_MOMENT, moments)
            if forget and self._db.execute(_FORGET_RECORDS, (HISTORY_KEPT,)).rowcount:
                self._db.execute(_FORGET_MOMENTS)
            self._db.execute("commit")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("rollback")
            raise

    # -- reading ---------------------------------------------------------------------------------------------------

    def find(self, relocation: UUID, role: Role) -> Deferred[Record | None]:
        """One record."""
        where = "where id = ? and role = ?"
        found = self._records(where, (str(relocation), role.value))
        return found.addCallback(lambda records: records[0] if records else None)

    def history(self, limit: int, reference: str | None = None) -> Deferred[list[Record]]:
        """The latest records, newest first; those of a relocation (by id) or domain (name, UUID) if one is given."""
        where = "where ?1 is null or ?1 in (id, domain_name, domain_uuid) order by began_s desc limit ?2"
        return self._records(where, (reference, limit))

    def open_records(self) -> Deferred[list[Record]]:
        """All records that are not final, oldest first."""
        return self._records(f"where mark not in ({_FINAL}) order by began_s", ())

    def timeline(self, relocation: UUID, role: Role) -> Deferred[list[Moment]]:
        """The moments of one relocation on one side, in order."""
        query = f"select {MOMENT_COLUMNS} from moment where id = ? and role = ? order by number"
        values = (str(relocation), role.value)
        return self._run(lambda: [moment_of(row) for row in self._db.execute(query, values)])

    def count_moments(self, relocation: UUID, role: Role) -> Deferred[int]:
        """How many moments of a relocation are on disk; the next one has this number."""
        query = "select coalesce(max(number) + 1, 0) from moment where id = ? and role = ?"
        values = (str(relocation), role.value)
        return self._run(lambda: int(self._db.execute(query, values).fetchone()[0]))

    def _records(self, where: str, values: Row) -> Deferred[list[Record]]:
        query = f"select {RECORD_COLUMNS}, seal from relocation {where}"
        return self._run(lambda: [record_of(row) for row in self._db.execute(query, values)])

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


def _size_bytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
