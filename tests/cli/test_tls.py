"""relocctl tls, on files: from an authority to a host that shows its certificate, and what does not fit."""

from __future__ import annotations

import json
import re
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from relocd.cli.tls import tls
from relocd.config import Config
from relocd.errors import ConfigError, RelocdError, UsageError
from relocd.tls import files
from relocd.tls.authority import issue
from relocd.tls.channel import make_context
from tests.certificates import AUTHORITY, LONG_AGO, OTHER_AUTHORITY

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs ``relocctl tls`` in an empty directory; errors are raised."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> Result:
        result = CliRunner().invoke(tls, words, standalone_mode=False)
        if isinstance(result.exception, RelocdError):
            raise result.exception
        assert result.exception is None, result.exception
        return result

    return run


def told(result: Result) -> dict[str, Any]:
    fields: dict[str, Any] = json.loads(result.stdout)
    return fields


def modes(directory: Path) -> dict[str, str]:
    return {path.name: f"{path.stat().st_mode & 0o777:o}" for path in directory.iterdir()}


def test_from_an_authority_to_a_host_that_can_use_it(run: Run, tmp_path: Path) -> None:
    assert "Next: 'relocctl tls issue HOST'" in run("init", "--directory", "ca").stdout
    assert modes(tmp_path / "ca") == {"ca.pem": "644", "ca.key": "600"}
    issued = run("issue", "hosta.invalid", "--san", "10.1.2.3", "--directory", "ca", "--days", "90")
    assert "for hosta.invalid, 10.1.2.3" in issued.stdout
    assert f"{(tmp_path / 'hosta.invalid.bundle.pem').stat().st_mode & 0o777:o}" == "600"
    assert (
        "systemctl reload relocd" in run("install", "hosta.invalid.bundle.pem", "--directory", "tls").stdout
    )
    assert modes(tmp_path / "tls") == {"ca.pem": "644", "host.pem": "644", "host.key": "600"}
    shown = run("show", "--directory", "tls")
    assert re.search(r"for +hosta.invalid, 10.1.2.3\n", shown.stdout)
    assert shown.stderr == ""
    fields = told(run("show", "--directory", "tls", "--json"))
    assert fields["names"] == ["hosta.invalid"]
    assert fields["addresses"] == ["10.1.2.3"]
    assert 89 < fields["days_left"] <= 90
    context = make_context(
        *(tmp_path / "tls" / name for name in ("ca.pem", "host.pem", "host.key")), server_side=True
    )
    assert context.verify_mode is ssl.CERT_REQUIRED


def test_a_renewal_replaces_what_is_there(run: Run) -> None:
    run("init", "--directory", "ca")
    for days in ("10", "200"):
        run("issue", "10.0.0.1", "--directory", "ca", "--days", days, "--output", f"{days}.pem")
        run("install", f"{days}.pem", "--directory", "tls")
        shown = run("show", "--directory", "tls")
        assert ("in 9 days" in shown.stderr) is (days == "10")
        assert ("relocctl tls issue" in shown.stderr) is (days == "10")


def test_an_authority_is_never_overwritten(run: Run, tmp_path: Path) -> None:
    run("init", "--directory", "ca")
    before = (tmp_path / "ca/ca.key").read_text()
    with pytest.raises(UsageError, match="there is an authority already"):
        run("init", "--directory", "ca")
    (tmp_path / "ca/ca.pem").unlink()
    with pytest.raises(UsageError, match="there is an authority already"):
        run("init", "--directory", "ca")
    assert (tmp_path / "ca/ca.key").read_text() == before


def test_a_bundle_is_never_overwritten(run: Run) -> None:
    run("init", "--directory", "ca")
    run("issue", "10.0.0.1", "--directory", "ca")
    with pytest.raises(UsageError, match="exists"):
        run("issue", "10.0.0.1", "--directory", "ca")


@pytest.mark.parametrize("host", ["*.example.org", "a b", "-x", "h\u00e4st", "../x", "", "x" * 300])
def test_what_no_host_is_called_is_refused(run: Run, host: str) -> None:
    run("init", "--directory", "ca")
    with pytest.raises(UsageError, match="neither a host name nor an address"):
        run("issue", "--directory", "ca", "--", host)


def test_without_an_authority_nothing_is_issued(run: Run) -> None:
    with pytest.raises(UsageError, match="no authority") as caught:
        run("issue", "hosta", "--directory", "ca")
    assert "relocctl tls init" in caught.value.hint


def test_without_a_certificate_there_is_nothing_to_show(run: Run) -> None:
    with pytest.raises(UsageError, match="No certificate is installed"):
        run("show", "--directory", "tls")


OWN, OTHER = issue(AUTHORITY, ["hosta"]), issue(AUTHORITY, ["hostb"])
BROKEN = {
    "nonsense": ("nonsense", "no bundle"),
    "nothing": ("", "no bundle"),
    "no key": (OWN.certificate + AUTHORITY.certificate, "no bundle"),
    "key of another": (OTHER.key + OWN.certificate + AUTHORITY.certificate, "does not belong"),
    "other authority": (OWN.key + OWN.certificate + OTHER_AUTHORITY.certificate, "does not come from"),
    "wrong order": (OWN.key + AUTHORITY.certificate + OWN.certificate, "does not belong"),
    "broken certificate": (
        OWN.key + OWN.certificate.replace("\nMII", "\nMMM") + AUTHORITY.certificate,
        "no certificate in PEM form",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_does_not_fit_is_not_installed(run: Run, tmp_path: Path, case: str) -> None:
    text, says = BROKEN[case]
    (tmp_path / "bundle").write_text(text)
    with pytest.raises(ConfigError, match=says):
        run("install", "bundle", "--directory", "tls")
    assert not (tmp_path / "tls").exists()


def test_an_expired_certificate_is_warned_about(run: Run, tmp_path: Path) -> None:
    old = issue(AUTHORITY, ["hosta"], now=LONG_AGO)
    files.save_bundle(tmp_path / "bundle", files.Bundle(AUTHORITY.certificate, old.certificate, old.key))
    assert "has expired" in run("install", "bundle", "--directory", "tls").stderr
    assert told(run("show", "--directory", "tls", "--json"))["days_left"] < 0


def test_errors_come_as_json_too(tmp_path: Path) -> None:
    result = CliRunner().invoke(tls, ["show", "--directory", str(tmp_path), "--json"], standalone_mode=False)
    assert json.loads(result.stdout)["code"] == "usage"


def test_the_defaults_are_where_the_daemon_looks() -> None:
    places = Config().tls_ca, Config().tls_certificate, Config().tls_key
    names = files.CA_FILE, files.CERTIFICATE_FILE, files.KEY_FILE
    assert places == tuple(str(files.HOST_DIRECTORY / name) for name in names)
