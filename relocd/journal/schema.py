"""The journal's tables, and how those of earlier versions become today's."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

from relocd.errors import JournalError
from relocd.journal.rows import read_record, seal

#: Written to ``PRAGMA user_version``; a journal of a later version is not touched.
SCHEMA_VERSION = 3

#: What a seal was over until version 2.
_COLUMNS_2 = "id, role, domain, live, peer_host, peer_port, token, was_paused, mark, began_s, outcome"

Step = Callable[[sqlite3.Connection], None]


def _first(db: sqlite3.Connection) -> None:
    db.execute(
        """
        create table relocation (
            id text not null, role text not null, domain text not null, domain_uuid text not null,
            live integer not null, peer_host text not null, peer_port integer not null, token text not null,
            was_paused integer not null, mark text not null, began_s real not null, changed_s real not null,
            outcome text not null,
            primary key (id, role)
        ) without rowid
        """
    )


def _timeline_and_names(db: sqlite3.Connection) -> None:
    """Version 2: a timeline, names and seals in columns, and a mark of its own for a domain that has arrived."""
    db.execute(
        """
        create table moment (
            id text not null, role text not null, number integer not null, at_s real not null, kind text not null,
            detail text not null,
            primary key (id, role, number)
        ) without rowid
        """
    )
    db.execute("alter table relocation add column domain_name text not null default ''")
    db.execute("alter table relocation add column seal text not null default ''")
    db.execute("update relocation set mark = 'arrived' where mark = 'owned' and outcome <> '{}'")
    for row in db.execute(f"select {_COLUMNS_2} from relocation").fetchall():
        record = read_record((*row, 0))
        db.execute(
            "update relocation set domain_name = ?, seal = ? where id = ? and role = ?",
            (record.domain.name, seal(row), str(record.relocation), record.role.value),
        )
    db.execute("create index relocation_began on relocation (began_s)")


def _secure(db: sqlite3.Connection) -> None:
    """Version 3: whether a relocation began over TLS. A seal that is wrong stays wrong."""
    db.execute("alter table relocation add column secure integer not null default 0")
    for *row, sealed in db.execute(f"select {_COLUMNS_2}, seal from relocation").fetchall():
        if seal(tuple(row)) == sealed:
            db.execute(
                "update relocation set seal = ? where id = ? and role = ?",
                (seal((*row, 0)), row[0], row[1]),
            )


#: What leads to each version from the one before it.
STEPS: tuple[Step, ...] = (_first, _timeline_and_names, _secure)


def prepare(db: sqlite3.Connection) -> None:
    """Bring the database to SCHEMA_VERSION, each step whole or not at all.

    Raises JournalError for one of a later version, sqlite3.Error for a damaged one.
    """
    (version,) = db.execute("pragma user_version").fetchone()
    if version > SCHEMA_VERSION:
        raise JournalError(
            f"it was written by a later relocd (schema {version}, known here: {SCHEMA_VERSION})",
            hint="Install that version again, or move the file away if no relocation is under way.",
        )
    # Not the quick check: a page that has lost rows is found only by comparing it with its index.
    ((verdict,),) = db.execute("pragma integrity_check(1)").fetchall()
    if verdict != "ok":
        raise sqlite3.DatabaseError(verdict)
    for number, step in enumerate(STEPS[version:], start=version + 1):
        db.execute("begin immediate")
        try:
            step(db)
            db.execute(f"pragma user_version = {number}")
            db.execute("commit")
        except BaseException:
            db.execute("rollback")
            raise
