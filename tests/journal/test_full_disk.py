"""A disk that is really full: a file system of its own, filled to the last block."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest
from attrs import evolve

from relocd.errors import JournalError
from relocd.handover.record import Mark
from tests.journal.test_store import RECORD, find, open_journal, write

pytestmark = pytest.mark.netns


@contextlib.contextmanager
def small_disk(mount_point: Path, size_kib: int = 512) -> Iterator[Path]:
    """A file system with little room, mounted for as long as the context lasts."""
    mount_point.mkdir()
    options = f"size={size_kib}k,mode=0700"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "relocd-test", str(mount_point)], check=True)
    try:
        yield mount_point
    finally:
        subprocess.run(["umount", "--lazy", str(mount_point)], check=True)


def fill(directory: Path) -> Path:
    """Take all the room that is left; removing the file gives it back."""
    path = directory / "filler"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    with contextlib.suppress(OSError):  # no space left on device, some time
        while True:
            os.write(descriptor, bytes(4096))
    os.close(descriptor)
    assert os.statvfs(directory).f_bavail == 0
    return path


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
