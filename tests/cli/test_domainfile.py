"""The operands of create."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from relocd.cli import domainfile
from relocd.errors import ConfigError, UsageError


def test_bare_words_are_files_and_the_rest_settings() -> None:
    files, settings = domainfile.split_operands(
        ["web.cfg", "memory=512", "extra=a=b c", "./a=b", "on_crash="]
    )
    assert files == ["web.cfg", "./a=b"]
    assert settings == {"memory": "512", "extra": "a=b c", "on_crash": ""}


def test_exactly_one_file_is_needed() -> None:
    assert domainfile.only_file(["a"]) == "a"
    with pytest.raises(UsageError, match="No domain file"):
        domainfile.only_file([])
    with pytest.raises(UsageError, match="a, b"):
        domainfile.only_file(["a", "b"])


def test_a_file_is_read_with_its_absolute_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "web.cfg").write_text("name = 'wéb'\n")
    monkeypatch.chdir(tmp_path)
    read = domainfile.read("web.cfg")
    assert read == domainfile.DomainFile("name = 'wéb'\n", str(tmp_path / "web.cfg"))


def test_a_dash_is_stdin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"name = 'web'\n")))
    assert domainfile.read("-") == domainfile.DomainFile("name = 'web'\n", "<stdin>")


def test_a_missing_file_is_told_in_the_systems_words(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file or directory"):
        domainfile.read(str(tmp_path / "none"))
    with pytest.raises(UsageError, match="Is a directory"):
        domainfile.read(str(tmp_path))


def test_a_disk_image_named_by_mistake_is_refused(tmp_path: Path) -> None:
    image = tmp_path / "web.img"
    image.touch()
    os.truncate(image, 2**40)
    with pytest.raises(ConfigError, match="longer than 524288 bytes"):
        domainfile.read(str(image))
    image.write_bytes(b"\xff\xfe")
    os.truncate(image, 2)
    with pytest.raises(ConfigError, match="not UTF-8"):
        domainfile.read(str(image))


def test_the_search_path_is_tried_in_order(tmp_path: Path) -> None:
    for directory in ("a", "b"):
        (tmp_path / directory).mkdir()
    (tmp_path / "b/web").touch()
    path = [str(tmp_path / "a"), str(tmp_path / "b")]
    assert domainfile.search("web", path) == str(tmp_path / "b/web")
    (tmp_path / "a/web").touch()
    assert domainfile.search("web", path) == str(tmp_path / "a/web")
    assert domainfile.search(str(tmp_path / "b/web"), path) == str(tmp_path / "b/web")
    with pytest.raises(UsageError, match="Unable to open config file: mail"):
        domainfile.search("mail", path)
