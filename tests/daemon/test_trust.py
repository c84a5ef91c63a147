"""Which files make a host trust others, and what it says of its own certificate."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from twisted.logger import LogEvent, globalLogPublisher

from relocd.config import Config
from relocd.config.model import TlsMode
from relocd.daemon.lookup import Resolver
from relocd.daemon.trust import Trust, load_credentials
from relocd.errors import ConfigError, Untrusted
from relocd.tls.authority import issue
from tests.certificates import AUTHORITY, lay_out, tls
from tests.reactor import run


def trust(config: Config) -> Trust:
    from twisted.internet import reactor

    return Trust(config, Resolver(reactor, 2.0))


def nowhere(mode: TlsMode, tmp_path: Path) -> Config:
    return Config(tls=mode, **{key: str(tmp_path / key) for key in ("tls_ca", "tls_certificate", "tls_key")})


@pytest.mark.parametrize("mode", [TlsMode.OFF, TlsMode.PREFER])
def test_without_files_there_is_no_tls(mode: TlsMode, tmp_path: Path) -> None:
    assert load_credentials(nowhere(mode, tmp_path)) is None


def test_require_wants_the_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="require, and this file is missing") as caught:
        load_credentials(nowhere(TlsMode.REQUIRE, tmp_path))
    assert "relocctl tls install" in caught.value.hint


@pytest.mark.parametrize("missing", ["tls_ca", "tls_certificate", "tls_key"])
def test_a_part_of_the_files_is_an_error_also_where_tls_is_preferred(missing: str, tmp_path: Path) -> None:
    config = Config(**tls(tmp_path, mode=TlsMode.PREFER))
    (tmp_path / missing).unlink()
    with pytest.raises(ConfigError, match="is missing"):
        load_credentials(config)


def test_off_looks_at_no_file(tmp_path: Path) -> None:
    config = Config(**tls(tmp_path, mode=TlsMode.OFF))
    (tmp_path / "tls_key").write_text("nonsense")
    assert load_credentials(config) is None


@pytest.mark.parametrize("days", [10, 40])
def test_the_log_warns_of_an_end_that_is_near(days: int, tmp_path: Path) -> None:
    began = datetime.now(UTC) - timedelta(days=365 - days)
    own = issue(AUTHORITY, ["hosta"], now=began)
    said: list[str] = []

    def note(event: LogEvent) -> None:
        said.append(str(event.get("warning", "")))

    globalLogPublisher.addObserver(note)
    try:
        trust(Config(**lay_out(tmp_path, AUTHORITY, own))).warn()
    finally:
        globalLogPublisher.removeObserver(note)
    assert any("expires on" in text for text in said) is (days == 10)


@pytest.mark.parametrize(
    ("holder", "called", "trusted"),
    [
        ("127.0.0.1", "", True),
        ("localhost", "", True),  # by the confirmed name of the address
        ("localhost", "127.0.0.1", True),
        ("localhost", "LOCALHOST", True),
        ("127.0.0.1", "localhost", False),  # who is called by a name must have it
        ("elsewhere", "", False),
        ("127.0.0.2", "127.0.0.1", False),
    ],
)
def test_whom_a_certificate_proves(holder: str, called: str, trusted: bool, tmp_path: Path) -> None:
    shown = issue(AUTHORITY, [holder]).der()
    judge = trust(Config(**tls(tmp_path))).judge(shown, "127.0.0.1", called)
    if trusted:
        assert run(judge).is_for(holder)
    else:
        with pytest.raises(Untrusted, match=f"is for {holder}, not for") as caught:
            run(judge)
        assert "--san" in caught.value.hint
