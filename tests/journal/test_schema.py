"""A journal of an earlier version becomes today's, whole or not at all; a damaged one is an error, never a guess."""

from __future__ import annotations

import random
import sqlite3
from pathlib import Path
from uuid import UUID

import pytest
from attrs import evolve

from relocd.domain.record import to_sxp
from relocd.errors import JournalError
from relocd.handover.record import Mark, Record, Role
from relocd.journal import schema
from relocd.journal.schema import SCHEMA_VERSION
from relocd.sxp import dumps
from tests.journal.test_store import RECORD, find, history, open_journal, open_records, timeline, write

#: The table as version 1 had it; a literal, since the code may change and old files do not.
VERSION_1 = """
create table relocation (
    id text not null, role text not null, domain text not null, domain_uuid text not null, live integer not null,
    peer_host text not null, peer_port integer not null, token text not null, was_paused integer not null,
    mark text not null, began_s real not null, changed_s real not null, outcome text not null,
    primary key (id, role)
) without rowid;
pragma user_version = 1;
"""


def write_version_1(path: Path, *rows: tuple[int, str, str, str]) -> None:
    """A journal of version 1; rows are relocation number, role, mark and outcome."""
    db = sqlite3.connect(path)
    db.executescript(VERSION_1)
    for number, role, mark, outcome in rows:
        values = (
            *(str(UUID(int=number)), role, dumps(to_sxp(RECORD.domain)), str(RECORD.domain.uuid), 1),
            *("10.0.0.2", 8002, "ab" * 16, 0, mark, 1000.0 + number, 1001.0, outcome),
        )
        db.execute(f"insert into relocation values ({', '.join('?' * 13)})", values)
    db.commit()
    db.close()


def version(path: Path) -> int:
    db = sqlite3.connect(path)
    (number,) = db.execute("pragma user_version").fetchone()
    db.close()
    return int(number)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.sqlite"


def test_version_1_is_migrated_with_everything_in_it(path: Path) -> None:
    write_version_1(
        path,
        (1, "source", "committed", "{}"),
        (2, "target", "owned", "{}"),
        (3, "target", "owned", '{"outcome": "completed"}'),
        (4, "source", "aborted", '{"outcome": "failed", "error": "x"}'),
    )
    journal = open_journal(path)
    marks = {record.relocation.int: record.mark for record in history(journal)}
    assert marks == {1: Mark.COMMITTED, 2: Mark.OWNED, 3: Mark.ARRIVED, 4: Mark.ABORTED}
    assert [record.relocation.int for record in open_records(journal)] == [1, 2]
    assert find(journal, evolve(RECORD, relocation=UUID(int=1))) == evolve(
        RECORD, relocation=UUID(int=1), mark=Mark.COMMITTED, began_s=1001.0
    )
    assert len(history(journal, reference="web")) == 4
    assert timeline(journal, RECORD) == []
    write(journal, evolve(RECORD, relocation=UUID(int=9)))
    journal.close()
    assert version(path) == SCHEMA_VERSION


def test_a_migration_that_breaks_off_leaves_the_old_version_whole(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_version_1(path, (1, "source", "committed", "{}"))

    first, second, *others = schema.STEPS

    def half_way(db: sqlite3.Connection) -> None:
        second(db)
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(schema, "STEPS", (first, half_way, *others))
        with pytest.raises(JournalError, match="disk is full"):
            open_journal(path)
    assert version(path) == 1
    journal = open_journal(path)
    assert [record.mark for record in open_records(journal)] == [Mark.COMMITTED]
    journal.close()


def test_version_2_gets_new_seals_and_what_was_damaged_stays_so(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(schema, "STEPS", schema.STEPS[:2])
        write_version_1(path, (1, "source", "committed", "{}"), (2, "source", "committed", "{}"))
        db = sqlite3.connect(path)
        schema.prepare(db)
        db.execute("update relocation set mark = 'done' where id = ?", (str(UUID(int=2)),))
        db.commit()
        db.close()
    journal = open_journal(path)
    (sound,) = open_records(journal)
    assert (sound.relocation.int, sound.secure) == (1, False)
    with pytest.raises(JournalError, match="damaged"):
        find(journal, evolve(RECORD, relocation=UUID(int=2)))
    write(journal, evolve(sound, secure=True))
    assert open_records(journal)[0].secure
    journal.close()


def test_a_record_of_version_1_that_cannot_be_read_stops_the_migration(path: Path) -> None:
    write_version_1(path, (1, "source", "committed", "{}"))
    db = sqlite3.connect(path)
    db.execute("update relocation set domain = '(domain'")
    db.commit()
    db.close()
    with pytest.raises(JournalError, match="cannot be read"):
        open_journal(path)
    assert version(path) == 1


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("mark", "perhaps"),
        ("role", "observer"),
        ("domain", "(domain (name"),
        ("outcome", "{"),
        ("outcome", "[]"),
        ("id", "not-a-uuid"),
        ("peer_port", "many"),
        ("began_s", "yesterday"),
    ],
)
def test_an_open_record_that_cannot_be_read_is_a_clear_error(path: Path, column: str, value: str) -> None:
    journal = open_journal(path)
    write(journal, RECORD)
    journal.close()
    db = sqlite3.connect(path)
    db.execute(f"update relocation set {column} = ?", (value,))
    db.commit()
    db.close()
    journal = open_journal(path)
    with pytest.raises(JournalError, match="cannot be read"):
        open_records(journal)
    journal.close()


def test_damage_anywhere_is_an_error_or_harmless_and_never_another_decision(path: Path) -> None:
    """Single flipped bytes all over a real file: either it is noticed, or every mark is what was written."""
    journal = open_journal(path)
    records = [
        evolve(RECORD, relocation=UUID(int=n), role=role, mark=Mark.COMMITTED, token=f"{n:032x}")
        for n in range(1, 30)
        for role in Role
    ]
    for record in records:
        write(journal, record)
    journal.close()
    whole = path.read_bytes()
    noticed = 0
    choose = random.Random(7)
    for _ in range(300):
        damaged = bytearray(whole)
        damaged[choose.randrange(len(damaged))] ^= 1 << choose.randrange(8)
        path.write_bytes(damaged)
        for extra in ("-wal", "-shm"):
            path.with_name(path.name + extra).unlink(missing_ok=True)
        noticed += _noticed(path, records)
    assert noticed > 10


def _noticed(path: Path, records: list[Record]) -> bool:
    """Was the damage an error? If not, no open record may have become a closed one."""
    try:
        journal = open_journal(path)
    except JournalError:
        return True
    try:
        found = open_records(journal)
    except JournalError:
        return True
    finally:
        journal.close()
    assert {record.mark for record in found} <= {Mark.COMMITTED}
    assert len(found) == len(records)
    return False


@pytest.mark.parametrize("kept", [0, 1, 50, 99, 100, 101, 1000, 4095, 4096, 4097])
def test_a_file_that_was_cut_off_is_new_or_an_error(path: Path, kept: int) -> None:
    journal = open_journal(path)
    for n in range(1, 30):
        write(journal, evolve(RECORD, relocation=UUID(int=n)))
    journal.close()
    path.write_bytes(path.read_bytes()[:kept])
    if kept == 0:
        journal = open_journal(path)
        assert open_records(journal) == []
        journal.close()
        return
    with pytest.raises(JournalError) as caught:
        open_journal(path)
    assert "move it away" in caught.value.hint
