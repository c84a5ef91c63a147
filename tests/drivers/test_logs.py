"""Logs of domains: bounded while they are written, read for the last words, swept in the end."""

from __future__ import annotations

import os
from pathlib import Path
from uuid import uuid4

from relocd.drivers.qemu import logs

UUID_1, UUID_2 = uuid4(), uuid4()


def test_a_log_is_bounded_while_somebody_appends(tmp_path: Path) -> None:
    path = logs.console_log(tmp_path, UUID_1)
    with path.open("ab", buffering=0) as writer:
        writer.write(b"a" * 100)
        logs.bound(path, 100)
        assert path.stat().st_size == 100
        writer.write(b"b")
        logs.bound(path, 100)
        assert path.stat().st_size == 0
        writer.write(b"c")
    assert path.read_bytes() == b"c"
    assert (tmp_path / f"console-{UUID_1}.log.1").read_bytes() == b"a" * 100 + b"b"


def test_both_logs_of_a_domain_are_bounded_and_a_missing_one_is_no_error(tmp_path: Path) -> None:
    logs.error_log(tmp_path, UUID_1).write_bytes(b"x" * 11)
    logs.bound_all(tmp_path, UUID_1, 10)
    assert logs.error_log(tmp_path, UUID_1).stat().st_size == 0


def test_last_words_without_times_and_names(tmp_path: Path) -> None:
    path = tmp_path / "log"
    assert logs.last_words(path) == ""
    path.write_text(
        "x" * 10_000 + "\n"
        "2026-11-23T05:00:00.000000Z qemu-system-x86_64: warning: one\n"
        "2026-11-23T05:00:01.000000Z qemu-system-x86_64: two\n"
        "three\n"
    )
    assert logs.last_words(path) == "warning: one; two; three"
    assert logs.last_words(path, lines=1) == "three"


def test_removal_takes_the_former_ones_too(tmp_path: Path) -> None:
    kept = logs.console_log(tmp_path, UUID_2)
    kept.touch()
    path = logs.console_log(tmp_path, UUID_1)
    path.write_bytes(b"x" * 11)
    logs.bound(path, 10)
    logs.error_log(tmp_path, UUID_1).touch()
    for _ in range(2):
        logs.remove(tmp_path, UUID_1)
        assert list(tmp_path.iterdir()) == [kept]


def test_only_old_logs_of_domains_that_are_gone_are_swept(tmp_path: Path) -> None:
    old, living, fresh = (logs.console_log(tmp_path, uuid) for uuid in (UUID_1, UUID_2, uuid4()))
    other = tmp_path / "relocd.log"
    for path in (old, living, fresh, other):
        path.touch()
    for path in (old, living, other):
        os.utime(path, (0, 0))
    logs.sweep(tmp_path, {str(UUID_2)})
    assert sorted(tmp_path.iterdir()) == sorted([living, fresh, other])
