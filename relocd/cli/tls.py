"""``relocctl tls``: the authority and the certificates of hosts. Works on files; asks no daemon."""

from __future__ import annotations

import functools
import json
import socket
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path

import click

from relocd.cli import failures
from relocd.cli.exitcodes import SUCCESS
from relocd.cli.failures import printable
from relocd.cli.frame import cli
from relocd.errors import RelocdError
from relocd.tls import files
from relocd.tls.authority import AUTHORITY_DAYS, HOST_DAYS, issue, new_authority
from relocd.tls.certificate import Certificate, describe, read_pem

EPILOG = """\b
Three hosts, the authority on the first:
  relocctl tls init
  for host in hosta hostb hostc; do relocctl tls issue $host; done
  relocctl tls install hosta.bundle.pem && systemctl reload relocd
  scp hostb.bundle.pem hostb:; scp hostc.bundle.pem hostc:
  ssh hostb 'relocctl tls install hostb.bundle.pem && systemctl reload relocd'   # and hostc
"""


@cli.group(epilog=EPILOG)
def tls() -> None:
    """Make and install the certificates with which hosts prove who they are.

    One host has the authority, whose certificate all hosts trust and whose key never leaves it. Every command takes
    --json.
    """


def verb(function: Callable[..., int]) -> click.Command:
    """Make a function a command: with ``--json``, and with errors in JSON too."""

    def run(*, as_json: bool, **arguments: object) -> int:
        try:
            return function(as_json=as_json, **arguments)
        except RelocdError as error:
            if as_json:
                click.echo(json.dumps(failures.error_object(error)))
            raise

    command = functools.update_wrapper(run, function)
    option = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
    return tls.command(function.__name__.rstrip("_"))(option(command))


def _directory(default: Path, what: str) -> Callable[[Callable[..., int]], Callable[..., int]]:
    kind = click.Path(file_okay=False, path_type=Path)
    return click.option("--directory", type=kind, default=default, show_default=True, help=what)


_of_authority = _directory(files.AUTHORITY_DIRECTORY, "Where the authority is.")
_of_host = _directory(files.HOST_DIRECTORY, "Where the files of this host are.")


def _answer(as_json: bool, fields: dict[str, object], text: str) -> int:
    click.echo(json.dumps(fields) if as_json else text)
    return SUCCESS


@verb
@_of_authority
def init(as_json: bool, directory: Path) -> int:
    """Make the authority, once for all hosts. Keep its key safe: who has it can pass for any host."""
    authority = new_authority()
    files.save_authority(directory, authority)
    told = describe(read_pem(authority.certificate, str(directory)))
    text = (
        f"Made the authority '{told.subject}' in {directory}, for {AUTHORITY_DAYS // 365} years.\n"
        "Next: 'relocctl tls issue HOST' for each host, this one included."
    )
    return _answer(as_json, {"directory": str(directory), **_fields(told)}, text)


@verb
@_of_authority
@click.option(
    "--san", multiple=True, metavar="NAME", help="Another name or address of HOST; may be repeated."
)
@click.option(
    "--days", type=click.IntRange(1, AUTHORITY_DAYS), default=HOST_DAYS, show_default=True, help="Validity."
)
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The file to write. Default: HOST.bundle.pem here.",
)
@click.argument("host")
def issue_(
    as_json: bool, directory: Path, san: tuple[str, ...], days: int, output: Path | None, host: str
) -> int:
    """Make a certificate and its key for HOST, as a bundle that 'relocctl tls install' takes there.

    HOST is what operators call it, a name or an address. The addresses to which the name leads here are added.
    """
    authority = files.load_authority(directory)
    found = _addresses(host)
    pair = issue(authority, files.holders(host, san, found), days=days)
    path = output or Path(f"{host}.bundle.pem")
    files.save_bundle(path, files.Bundle(authority.certificate, pair.certificate, pair.key))
    told = describe(read_pem(pair.certificate, str(path)))
    if not told.addresses:
        failures.warn([f"{host} leads to no address here: add those that it connects from with --san."])
    text = (
        f"Issued {path} for {told.holders}, until {told.not_after:%Y-%m-%d}.\n"
        f"Next, on {host}: 'relocctl tls install {path.name}'. The file holds a key: remove it afterwards."
    )
    return _answer(as_json, {"bundle": str(path), **_fields(told)}, text)


@verb
@_of_host
@click.argument("bundle", type=click.Path(dir_okay=False, path_type=Path))
def install(as_json: bool, directory: Path, bundle: Path) -> int:
    """Put what BUNDLE holds in place on this host, after a check that it fits together."""
    loaded = files.load_bundle(bundle)
    told = files.check(loaded, str(bundle))
    if warning := told.warning():
        failures.warn([warning])
    files.install(loaded, directory)
    text = (
        f"Installed the certificate for {printable(told.holders)} in {directory}, until {told.not_after:%Y-%m-%d}.\n"
        f"Next: 'systemctl reload relocd', and remove {bundle}."
    )
    return _answer(as_json, {"directory": str(directory), **_fields(told)}, text)


@verb
@_of_host
def show(as_json: bool, directory: Path) -> int:
    """Show this host's certificate. Warns if it ends within 30 days."""
    told = files.check(files.load_installed(directory), str(directory / files.CERTIFICATE_FILE))
    if warning := told.warning():
        failures.warn([f"{warning}: 'relocctl tls issue' on the host of the authority makes a new one."])
    rows = {
        "subject": told.subject,
        "for": told.holders,
        "issuer": told.issuer,
        "from": f"{told.not_before:%Y-%m-%d %H:%M} UTC",
        "until": f"{told.not_after:%Y-%m-%d %H:%M} UTC, {told.days_left():.0f} days",
    }
    lines = [f"{key.ljust(8)} {printable(text)}" for key, text in rows.items()]
    return _answer(as_json, _fields(told), "\n".join(lines))


def _addresses(host: str) -> tuple[str, ...]:
    """Where a name leads from here; not to this host itself, which other hosts do not know by that address."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return ()
    addresses = [str(sockaddr[0]).partition("%")[0] for *_, sockaddr in found]
    return tuple(a for a in dict.fromkeys(addresses) if not ip_address(a).is_loopback)


def _fields(told: Certificate) -> dict[str, object]:
    return {
        "subject": told.subject,
        "names": list(told.names),
        "addresses": list(told.addresses),
        "issuer": told.issuer,
        "not_before": told.not_before.isoformat(),
        "not_after": told.not_after.isoformat(),
        "days_left": round(told.days_left(), 1),
        "warning": told.warning(),
    }
