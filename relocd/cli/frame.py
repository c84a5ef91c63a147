"""What all commands of relocctl share: the group, how a function becomes a command, how answers are printed."""

from __future__ import annotations

import functools
import importlib
import json
from collections.abc import Callable
from typing import Any

import click

from relocd import __version__
from relocd.cli import failures
from relocd.cli.client import DEFAULT_SOCKET, SOCKET_VARIABLE, Client, JsonObject, socket_path
from relocd.cli.exitcodes import SUCCESS, plain_table
from relocd.errors import RelocdError

GROUP_EPILOG = f"""\b
Examples:
  relocctl create web.cfg memory=512      start a domain
  relocctl list                           what runs here
  relocctl check web hostb                could web move to hostb? moves nothing
  relocctl migrate --live web hostb       move it while its guest works

DOMAIN is a name, an id or a UUID, tried in this order. HOST is a name or an
address; relocd must run there and allow this host to relocate to it.

\b
Exit codes:
{plain_table()}
"""


LATE = {
    "firewall": "relocd.cli.access",
    "peers": "relocd.cli.access",
    "tls": "relocd.cli.tls",
}
"""Commands that their modules add to the group, and whose modules need others that take long to load."""


class Group(click.Group):
    """Loads LATE commands when they are asked for: relocctl's start is a part of each relocation's time."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *LATE})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in LATE:
            importlib.import_module(LATE[cmd_name])
        return super().get_command(ctx, cmd_name)


CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


@click.group(cls=Group, epilog=GROUP_EPILOG, context_settings=CONTEXT)
@click.option(
    "--socket",
    "socket",
    metavar="PATH",
    help=f"relocd's control socket. Default: ${SOCKET_VARIABLE}, else {DEFAULT_SOCKET}.",
)
@click.version_option(__version__, prog_name="relocctl")
@click.pass_context
def cli(context: click.Context, socket: str | None) -> None:
    """Ask the relocation daemon (relocd) of this host: start and stop domains, and move them to other hosts.

    Every command takes --json and then prints JSON for programs, errors included.
    'relocctl COMMAND --help' explains a command.
    """
    context.obj = Client(socket_path(socket))


def verb(
    name: str | None = None, *, epilog: str = "", group: click.Group = cli
) -> Callable[[Callable[..., int]], click.Command]:
    """Make a function a command: with ``--json``, and with errors in JSON too. It returns the exit code."""

    def decorate(function: Callable[..., int]) -> click.Command:
        def run(client: Client, /, as_json: bool, **arguments: Any) -> int:
            try:
                return function(client, as_json=as_json, **arguments)
            except RelocdError as error:
                if as_json:
                    echo_json(failures.error_object(error))
                raise

        command = functools.update_wrapper(click.pass_obj(run), function)
        option = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
        return group.command(name, epilog=epilog)(option(command))

    return decorate


domain_argument = click.argument("domain")
host_argument = click.argument("host")
port_option = click.option(
    "--port",
    "-p",
    type=click.IntRange(1, 65535),
    help="Relocation port of HOST. Default: the one this host uses itself.",
)


def echo_json(value: object) -> None:
    """Print one JSON value on one line."""
    click.echo(json.dumps(value))


def answer(as_json: bool, reply: JsonObject | list[JsonObject], text: str) -> int:
    """Print what relocd said, for a program or for a person."""
    if as_json:
        echo_json(reply)
    else:
        click.echo(text)
    return SUCCESS
