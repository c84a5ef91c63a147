"""Parts of the composition root that have their own reasons."""

from __future__ import annotations

from pathlib import Path

import pytest

from relocd.daemon.service import RUN_DIR_MAX_BYTES, resolve_bind_address, short_name
from relocd.errors import ConfigError, RelocdError


def test_a_short_run_directory_keeps_its_name() -> None:
    assert short_name(Path("/run/relocd")) == Path("/run/relocd")


def test_a_long_run_directory_gets_a_short_name_that_is_always_the_same(tmp_path: Path) -> None:
    directory = tmp_path / ("long" * 20)
    directory.mkdir()
    alias = short_name(directory)
    try:
        assert len(str(alias)) <= RUN_DIR_MAX_BYTES
        assert alias.resolve() == directory.resolve()
        assert short_name(directory) == alias
        alias.unlink()
        alias.symlink_to(tmp_path)
        with pytest.raises(RelocdError, match="leads elsewhere"):
            short_name(directory)
    finally:
        alias.unlink()


def test_an_interface_stands_for_its_address() -> None:
    assert resolve_bind_address("lo") == "127.0.0.1"
    assert resolve_bind_address("10.0.0.1") == "10.0.0.1"
    assert resolve_bind_address("") == ""


def test_an_interface_without_an_address_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("psutil.net_if_addrs", lambda: {"bond0": []})
    with pytest.raises(ConfigError, match="bond0 has no IPv4 address"):
        resolve_bind_address("bond0")
