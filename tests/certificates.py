"""Certificates for tests: an authority in memory, and what a host's three files hold."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from relocd.config.model import TlsMode
from relocd.tls.authority import Pair, issue, new_authority
from tests.testbed.network import HOSTS, SUBNET

AUTHORITY = new_authority()
OTHER_AUTHORITY = new_authority()
LONG_AGO = datetime.now(UTC) - timedelta(days=400)


def lay_out(directory: Path, authority: Pair, own: Pair) -> dict[str, str]:
    """Write the files of a host; returns their places by field of Config."""
    directory.mkdir(parents=True, exist_ok=True)
    files = {"tls_ca": authority.certificate, "tls_certificate": own.certificate, "tls_key": own.key}
    for name, text in files.items():
        (directory / name).write_text(text)
    return {name: str(directory / name) for name in files}


def tls(
    directory: Path,
    *holders: str,
    authority: Pair = AUTHORITY,
    expired: bool = False,
    mode: TlsMode = TlsMode.REQUIRE,
) -> dict[str, Any]:
    """The settings of a host with a certificate for ``holders``, for 127.0.0.1 if there are none."""
    own = issue(authority, holders or ("127.0.0.1",), now=LONG_AGO if expired else None)
    return {"tls": mode, **lay_out(directory, authority, own)}


def secure(directory: Path, *holders: str, **options: Any) -> dict[str, str]:
    """The same as a configuration file has it, for the hosts of the testbed if nobody is named."""
    hosts = [f"{SUBNET}.{number}" for number in HOSTS.values()]
    fields = tls(directory, *(holders or hosts), **options)
    return {f"xen-relocation-{name.replace('_', '-')}": str(value) for name, value in fields.items()}
