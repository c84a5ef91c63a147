"""What arrives from a peer gets its name only if it is what was announced; the store keeps within its limit."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from relocd.errors import StreamError
from relocd.host import bootstore
from relocd.host.arrivals import Arrival
from relocd.model import BootFile

CONTENT = b"a kernel, or so" * 1000
FILE = BootFile("/boot/vmlinuz", hashlib.sha256(CONTENT).hexdigest(), len(CONTENT))


def test_what_was_announced_gets_its_name(tmp_path: Path) -> None:
    arrival = Arrival.create(tmp_path, FILE)
    os.write(arrival.descriptor, CONTENT)
    arrival.admit()
    assert [path.name for path in tmp_path.iterdir()] == [FILE.sha256]
    assert (tmp_path / FILE.sha256).read_bytes() == CONTENT
    assert bootstore.missing(tmp_path, [FILE]) == ()


@pytest.mark.parametrize("content", [CONTENT[:-1], CONTENT + b"x", b"x" + CONTENT[1:], b""])
def test_anything_else_is_refused_and_gone(tmp_path: Path, content: bytes) -> None:
    arrival = Arrival.create(tmp_path, FILE)
    os.write(arrival.descriptor, content)
    with pytest.raises(StreamError, match="did not arrive as announced"):
        arrival.admit()
    assert list(tmp_path.iterdir()) == []


def test_an_arrival_that_is_given_up_leaves_nothing(tmp_path: Path) -> None:
    arrival = Arrival.create(tmp_path, FILE)
    arrival.discard()
    arrival.discard()
    assert list(tmp_path.iterdir()) == []


def test_what_a_crash_left_half_arrived_is_swept(tmp_path: Path) -> None:
    os.close(Arrival.create(tmp_path, FILE).descriptor)
    (tmp_path / FILE.sha256).write_bytes(CONTENT)
    bootstore.sweep(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [FILE.sha256]


def test_each_content_is_missing_once(tmp_path: Path) -> None:
    other = BootFile("/boot/initrd", "ab" * 32, 1)
    assert bootstore.missing(tmp_path, [FILE, other, FILE]) == (FILE, other)


def test_the_oldest_unused_files_go_first(tmp_path: Path) -> None:
    for age, name in enumerate(["old", "used", "young"]):
        (tmp_path / name).write_bytes(bytes(100))
        os.utime(tmp_path / name, (1000 + age, 1000 + age))
    bootstore.trim(tmp_path, ["used"], limit_bytes=200)
    assert {path.name for path in tmp_path.iterdir()} == {"used", "young"}
    bootstore.trim(tmp_path, ["used"], limit_bytes=0)
    assert {path.name for path in tmp_path.iterdir()} == {"used"}
