"""A disk that is really full: a file system of its own, filled to the last block."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest
from attrs import evolve

from relocd.errors import JournalError
from relocd.handover.record import Mark
from tests.disk import fill, small_disk
from tests.journal.test_store import RECORD, find, open_journal, write

pytestmark = pytest.mark.netns


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk") as disk:
        yield disk


def test_a_decision_that_finds_no_room_is_an_error_and_the_one_before_stands(disk: Path) -> None:
    journal = open_journal(disk / "journal.sqlite")
    write(journal, RECORD)
    filler = fill(disk)
    with pytest.raises(JournalError, match="full"):
        write(journal, evolve(RECORD, mark=Mark.COMMITTED))
    assert find(journal, RECORD) == RECORD
    filler.unlink()
    write(journal, evolve(RECORD, mark=Mark.COMMITTED))
    assert find(journal, RECORD) == evolve(RECORD, mark=Mark.COMMITTED)
    journal.close()


def test_what_was_written_before_the_disk_was_full_is_there_after_a_crash(disk: Path) -> None:
    journal = open_journal(disk / "journal.sqlite")
    write(journal, evolve(RECORD, mark=Mark.COMMITTED))
    filler = fill(disk)
    with pytest.raises(JournalError):
        write(journal, evolve(RECORD, mark=Mark.DONE))
    copy = disk.parent / "copy"
    copy.mkdir()
    for name in ("journal.sqlite", "journal.sqlite-wal"):  # as they are on the disk, with nobody closing them
        (copy / name).write_bytes((disk / name).read_bytes())
    again = open_journal(copy / "journal.sqlite")
    assert find(again, RECORD) == evolve(RECORD, mark=Mark.COMMITTED)
    again.close()
    filler.unlink()
    journal.close()


def test_a_journal_that_cannot_be_made_stops_with_a_way_out(disk: Path) -> None:
    fill(disk)
    with pytest.raises(JournalError) as caught:
        open_journal(disk / "journal.sqlite")
    assert "disk space" in caught.value.hint


def test_no_room_for_a_new_relocation_costs_only_that_one(disk: Path) -> None:
    journal = open_journal(disk / "journal.sqlite")
    write(journal, RECORD)
    filler = fill(disk)
    with pytest.raises(JournalError):
        write(journal, evolve(RECORD, relocation=UUID(int=5)))
    assert find(journal, evolve(RECORD, relocation=UUID(int=5))) is None
    filler.unlink()
    journal.close()
