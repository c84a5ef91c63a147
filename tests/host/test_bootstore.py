"""The boot store: files by their content, whole or absent."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from uuid import uuid4

import pytest

from relocd.errors import DriverError
from relocd.host import bootstore
from relocd.model import BootFile, DomainConfig

CONTENT = b"kernel" * 1000
DIGEST = hashlib.sha256(CONTENT).hexdigest()
LIMIT = 10_000


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "vmlinuz"
    path.write_bytes(CONTENT)
    return path


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "state" / "boot"


def names(store: Path) -> list[str]:
    return sorted(path.name for path in store.iterdir()) if store.exists() else []


def test_a_file_gets_the_name_of_its_content(source: Path, store: Path) -> None:
    for _ in range(2):
        file = bootstore.put(store, BootFile(str(source)), limit_bytes=LIMIT)
        assert file == BootFile(str(source), DIGEST, len(CONTENT))
        assert names(store) == [DIGEST]
        assert (store / DIGEST).read_bytes() == CONTENT


def test_one_that_is_there_is_not_read_again(source: Path, store: Path) -> None:
    bootstore.put(store, BootFile(str(source)), limit_bytes=LIMIT)
    source.unlink()
    file = bootstore.put(store, BootFile(str(source), DIGEST), limit_bytes=LIMIT)
    assert file.size_bytes == len(CONTENT)


def test_another_content_than_the_digest_says(source: Path, store: Path) -> None:
    with pytest.raises(DriverError, match="not the file it was"):
        bootstore.put(store, BootFile(str(source), "0" * 64), limit_bytes=LIMIT)
    assert names(store) == []


def test_limits(source: Path, store: Path, tmp_path: Path) -> None:
    with pytest.raises(DriverError, match="6000 bytes; a boot file has 1 to 5999"):
        bootstore.put(store, BootFile(str(source)), limit_bytes=5999)
    (tmp_path / "empty").touch()
    with pytest.raises(DriverError, match="0 bytes"):
        bootstore.put(store, BootFile(str(tmp_path / "empty")), limit_bytes=LIMIT)
    assert names(store) == []


def test_what_is_not_a_file(store: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", tmp_path, Path("/dev/zero")):
        with pytest.raises(DriverError, match="is not a file"):
            bootstore.put(store, BootFile(str(path)), limit_bytes=LIMIT)
    with pytest.raises(DriverError, match="No such file"):
        bootstore.put(store, BootFile("/none"), limit_bytes=LIMIT)


def test_fill_and_require(source: Path, store: Path) -> None:
    config = DomainConfig("web", uuid4(), 16, kernel=BootFile(str(source)))
    with pytest.raises(DriverError, match="digest unknown"):
        bootstore.require(store, config)
    filled = bootstore.fill(store, config, limit_bytes=LIMIT)
    assert filled.kernel == BootFile(str(source), DIGEST, len(CONTENT))
    assert filled.ramdisk is None
    bootstore.require(store, filled)
    (store / DIGEST).unlink()
    with pytest.raises(DriverError, match="not in the boot store"):
        bootstore.require(store, filled)
