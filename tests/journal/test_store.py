"""The journal keeps decisions across a crash and says clearly when it cannot."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest
from attrs import evolve

from relocd.errors import JournalError
from relocd.handover.record import Mark, Record, Role
from relocd.handover.timeline import Moment, MomentKind
from relocd.journal import Journal, store
from relocd.journal.schema import SCHEMA_VERSION
from relocd.model import DomainConfig
from tests.reactor import call, run

RECORD = Record(
    relocation=UUID(int=1),
    role=Role.SOURCE,
    domain=DomainConfig(name="web", uuid=UUID(int=7), memory_mib=64),
    live=True,
    peer_host="10.0.0.2",
    peer_port=8002,
    token="ab" * 16,
    was_paused=False,
    mark=Mark.BEGUN,
    began_s=1000.0,
)


MOMENTS = (
    (0, Moment(1000.5, MomentKind.PHASE, {"phase": "connect"})),
    (1, Moment(1001.0, MomentKind.SAMPLE, {"sent_bytes": 4096, "round": 1})),
)


def open_journal(path: Path) -> Journal:
    def make() -> Journal:
        from twisted.internet import reactor

        return Journal(path, reactor)  # type: ignore[arg-type]  # the module is the reactor

    return call(make)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.sqlite"


@pytest.fixture
def journal(path: Path) -> Iterator[Journal]:
    journal = open_journal(path)
    yield journal
    journal.close()


def write(journal: Journal, record: Record, moments: tuple[tuple[int, Moment], ...] = ()) -> None:
    async def work() -> None:
        await journal.write(record, moments)

    run(work())


def find(journal: Journal, record: Record) -> Record | None:
    async def work() -> Record | None:
        return await journal.find(record.relocation, record.role)

    return run(work())


def history(journal: Journal, limit: int = 100, reference: str | None = None) -> list[Record]:
    async def work() -> list[Record]:
        return await journal.history(limit, reference)

    return run(work())


def timeline(journal: Journal, record: Record) -> list[Moment]:
    async def work() -> list[Moment]:
        return await journal.timeline(record.relocation, record.role)

    return run(work())


def open_records(journal: Journal) -> list[Record]:
    async def work() -> list[Record]:
        return await journal.open_records()

    return run(work())


def test_a_record_is_found_as_it_was_written(journal: Journal) -> None:
    full = evolve(RECORD, outcome={"outcome": "completed", "rounds": 3})
    write(journal, full)
    assert find(journal, full) == full
    assert find(journal, evolve(full, role=Role.TARGET)) is None


def test_a_mark_replaces_the_one_before_and_survives_a_reopening(path: Path) -> None:
    journal = open_journal(path)
    write(journal, RECORD)
    write(journal, evolve(RECORD, mark=Mark.COMMITTED))
    journal.close()
    again = open_journal(path)
    assert open_records(again) == [evolve(RECORD, mark=Mark.COMMITTED)]
    again.close()


@pytest.mark.parametrize(
    ("mark", "outcome", "is_open"),
    [
        (Mark.BEGUN, {}, True),
        (Mark.COMMITTED, {}, True),
        (Mark.OWNED, {}, True),
        (Mark.UNDOING, {}, True),
        (Mark.ARRIVED, {"outcome": "completed"}, False),
        (Mark.LOST, {}, False),
        (Mark.DONE, {}, False),
        (Mark.ABORTED, {}, False),
    ],
)
def test_what_has_to_be_taken_up_again(
    journal: Journal, mark: Mark, outcome: dict[str, object], is_open: bool
) -> None:
    write(journal, evolve(RECORD, mark=mark, outcome=outcome))
    assert bool(open_records(journal)) is is_open


def test_a_timeline_comes_back_in_order_and_grows(journal: Journal) -> None:
    write(journal, RECORD, MOMENTS[1:])
    write(journal, evolve(RECORD, mark=Mark.ABORTED), MOMENTS[:1])
    assert timeline(journal, RECORD) == [moment for _, moment in MOMENTS]
    assert timeline(journal, evolve(RECORD, role=Role.TARGET)) == []


def test_the_history_is_found_by_id_name_and_uuid(journal: Journal) -> None:
    other = evolve(RECORD, relocation=UUID(int=2), domain=DomainConfig("db", UUID(int=8), 64), began_s=2000.0)
    write(journal, RECORD)
    write(journal, other)
    assert history(journal) == [other, RECORD]
    assert history(journal, 1) == [other]
    for reference in ("web", str(UUID(int=7)), str(RECORD.relocation)):
        assert history(journal, 1, reference) == [RECORD]
    assert history(journal, 1, "w%") == []


def test_the_oldest_ended_relocations_are_forgotten_and_open_ones_never(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "HISTORY_KEPT", 3)
    write(journal, evolve(RECORD, relocation=UUID(int=100), began_s=1.0))
    ended = [evolve(RECORD, relocation=UUID(int=n), mark=Mark.DONE, began_s=1000.0 + n) for n in range(1, 6)]
    for record in ended:
        write(journal, record, MOMENTS)
    assert [record.relocation.int for record in history(journal)] == [5, 4, 3, 100]
    assert timeline(journal, ended[0]) == []
    assert timeline(journal, ended[4]) != []


def test_a_damaged_journal_stops_with_a_way_out(path: Path) -> None:
    path.write_bytes(b"this is not a database, and long enough to be read as one" * 100)
    with pytest.raises(JournalError) as caught:
        open_journal(path)
    assert str(path) in str(caught.value)
    assert "move it away" in caught.value.hint


def test_a_later_schema_is_not_touched(path: Path) -> None:
    db = sqlite3.connect(path)
    db.execute(f"pragma user_version = {SCHEMA_VERSION + 1}")
    db.close()
    with pytest.raises(JournalError, match="later relocd"):
        open_journal(path)


def test_a_write_that_fails_is_an_error_of_the_writer(path: Path) -> None:
    journal = open_journal(path)
    blocker = sqlite3.connect(path, isolation_level=None)
    blocker.execute("drop table relocation")
    blocker.close()
    with pytest.raises(JournalError, match="journal"):
        write(journal, RECORD)
    journal.close()
