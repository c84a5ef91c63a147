"""relocctl's commands about who gets in: through the packet filter, and through the allow-list."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterable, Iterator

import click

from relocd.cli import commands
from relocd.cli.client import Client, DaemonUnavailableError, JsonObject
from relocd.cli.exitcodes import REFUSED, SUCCESS
from relocd.cli.frame import answer, cli, host_argument, verb
from relocd.firewall.plan import own_name
from relocd.net import netfilter
from relocd.net.names import instance_tag

_WIDTH = 100


@verb(
    epilog=f"""\b
Exits with {REFUSED} if a rule keeps allowed peers out. What cannot be decided from the rules is said to be
undecided, and no failure. --remove works without a running daemon, too.
""",
)
@click.option("--remove", is_flag=True, help="Remove the rules that a relocd which was killed has left.")
def firewall(client: Client, as_json: bool, remove: bool) -> int:
    """Tell whether this host's packet filter lets the allowed peers reach the relocation port.

    It reads the rules of nftables and of iptables and names the rule that stands in the way. Nothing is changed;
    what relocd does about it is the setting xen-relocation-firewall.
    """
    if remove:
        removed = _remove(client)
        what = "are removed" if removed["removed"] else "are not there: nothing to remove"
        return answer(as_json, removed, f"The rules named {removed['name']} {what}.")
    told = commands.firewall(client)
    answer(as_json, told, firewall_text(told))
    return REFUSED if told.get("verdict") == "blocked" else SUCCESS


def _remove(client: Client) -> JsonObject:
    try:
        return commands.firewall(client, remove=True)
    except DaemonUnavailableError as error:
        if os.geteuid() != 0:
            raise error from None
        # The name of the rules comes from the run directory, in which the socket is.
        name = own_name(instance_tag(os.path.dirname(os.path.abspath(client.path))))  # noqa: PTH100, PTH120
        return {"name": name, "removed": netfilter.remove(name)}


def firewall_text(told: JsonObject) -> str:
    """``relocctl firewall`` for people."""
    flavours = " and ".join(told.get("flavours") or []) or "none"
    lines = [f"Packet filters in force: {flavours}. Setting: {told.get('mode')}."]
    if told.get("in_place"):
        lines.append(f"relocd keeps rules of its own; they are named {told.get('name')}.")
    for peer in told.get("peers") or []:
        lines += [f"  {peer.get('pattern')}", *_indented(_peer_lines(peer))]
    lines.append(f"Port {told.get('port')}: {told.get('verdict')}")
    lines += _indented(filter(None, (told.get("because"), told.get("next"))))
    if told.get("open_to_all") and told.get("verdict") == "open":
        lines.append("Every other host reaches the port, too; the allow-list alone keeps it out.")
    return _shown(lines)


def _peer_lines(peer: JsonObject) -> Iterator[str]:
    if peer.get("everybody"):
        yield "everybody" + (f": {peer['reason']}" if peer.get("reason") else "")
    elif peer.get("reason"):
        yield f"nobody: {peer['reason']}"
    for name, addresses in (peer.get("names") or {}).items():
        yield f"{name} is {', '.join(addresses) or 'a name without an address'}"
    networks = peer.get("networks") or []
    if not peer.get("everybody") and networks:
        more = f" and {len(networks) - 8} more" if len(networks) > 8 else ""
        yield f"that is {', '.join(networks[:8])}{more}"
    if networks or peer.get("everybody"):
        because = peer.get("because")
        yield f"{peer.get('verdict')}{f': {because}' if because else ''}"


def _shown(lines: Iterable[str]) -> str:
    """Without what could steer a terminal, some of it comes from name servers; spaces stay as they are."""
    return "\n".join("".join(char if char.isprintable() else "?" for char in line) for line in lines)


def _indented(sentences: Iterable[str]) -> list[str]:
    return [
        line
        for sentence in sentences
        for line in textwrap.wrap(
            sentence, _WIDTH, initial_indent="    ", subsequent_indent="      ", break_on_hyphens=False
        )
    ]


@cli.group()
def peers() -> None:
    """Look into who may connect to this host."""


@verb(
    "test",
    group=peers,
    epilog=f"""\b
Exits with {REFUSED} if the host, or one of its addresses, is not let in.
""",
)
@host_argument
def peers_test(client: Client, as_json: bool, host: str) -> int:
    """Tell whether HOST may connect to this host, by which pattern, and why.

    HOST is a name or an address of the peer. The running daemon decides as it does for a real connection: each
    address of HOST is tried with the patterns of xen-relocation-hosts-allow, then the names that lead back to it.
    """
    told = commands.peers_test(client, host)
    answer(as_json, told, peers_text(told))
    return SUCCESS if told.get("admitted") else REFUSED


def peers_text(told: JsonObject) -> str:
    """``relocctl peers test`` for people."""
    lines: list[str] = []
    for row in told.get("addresses") or []:
        lines.append(f"{row.get('address')}: {'let in' if row.get('admitted') else 'refused'}")
        lines += _indented(_row_lines(row))
    return _shown(lines)


def _row_lines(row: JsonObject) -> Iterator[str]:
    yield str(row.get("reason"))
    if row.get("lookup") == "timeout":
        yield "its name: not found out in time"
    elif row.get("lookup") == "done" and not row.get("names"):
        yield "its name: there is none"
    for name in row.get("names") or []:
        leads = ", ".join(name.get("leads_to") or []) or "nothing"
        doubt = "" if name.get("confirmed") else ": not confirmed"
        yield f"its name: {name.get('name')}, which leads to {leads}{doubt}"
    for pattern in row.get("patterns") or []:
        matches = pattern.get("matches")
        yield f"pattern {pattern.get('pattern')}: {f'matches {matches}' if matches else 'no'}"
    if row.get("next"):
        yield str(row["next"])
