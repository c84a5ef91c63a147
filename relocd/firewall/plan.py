"""What relocd adds to a packet filter: a chain that lets peers in, and the refusal of everybody else on its port.

With nftables an accepting rule ends its own base chain only, so the chain is added to each table that judges
incoming packets, called by one rule at the top; the refusal is in a table of relocd's own. Everything bears one
name, by which it is found again. A change is one transaction. Formats: libnftables-json(5).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from attrs import frozen

from relocd.firewall.peers import Network

Command = dict[str, Any]
Listing = list[dict[str, Any]]

_FAMILIES = ("ip", "ip6", "inet")


def own_name(tag: str) -> str:
    """The name of all chains and tables of one daemon; ``tag`` is relocd.net.names.instance_tag."""
    return f"relocd-{tag}"


@frozen
class Wanted:
    """Who may reach the port. ``everybody`` opens it to all, whatever ``networks`` says."""

    name: str
    port: int
    networks: tuple[Network, ...]
    everybody: bool = False


def nft_removal(listing: Listing, name: str) -> list[Command]:
    """Commands that remove everything of that name; none if there is nothing."""
    commands: list[Command] = [
        {"delete": {"rule": {key: rule[key] for key in ("family", "table", "chain", "handle")}}}
        for rule in _all(listing, "rule")
        if _calls(rule, name)
    ]
    for chain in _all(listing, "chain"):
        if chain["name"] == name:
            place = {"family": chain["family"], "table": chain["table"], "name": name}
            commands += [{"flush": {"chain": place}}, {"delete": {"chain": place}}]
    commands += [
        {"delete": {"table": {"family": table["family"], "name": name}}}
        for table in _all(listing, "table")
        if table["name"] == name
    ]
    return commands


def nft_commands(listing: Listing, wanted: Wanted) -> list[Command]:
    """Commands that replace what there is of that name by what is wanted."""
    commands = nft_removal(listing, wanted.name)
    for chain in judging_chains(listing, wanted.name):
        commands += _door(chain, wanted)
    if not wanted.everybody:
        commands += _refusal(wanted)
    return commands


def judging_chains(listing: Listing, name: str) -> list[dict[str, Any]]:
    """The base chains of others that decide about packets to this host, those that let all pass excepted."""
    with_rules = {
        (rule["family"], rule["table"], rule["chain"])
        for rule in _all(listing, "rule")
        if not _calls(rule, name)
    }
    return [
        chain
        for chain in _all(listing, "chain")
        if chain.get("hook") == "input" and chain.get("type") == "filter" and chain["family"] in _FAMILIES
        if chain["table"] != name
        and (chain.get("policy") == "drop" or (chain["family"], chain["table"], chain["name"]) in with_rules)
    ]


def own_part(listing: Listing, name: str) -> list[Command]:
    """What there is of that name, without what changes by itself: to see whether somebody else removed it."""
    found: list[Command] = []
    first_of_chain: set[tuple[str, str, str]] = set()
    for rule in _all(listing, "rule"):
        place = (rule["family"], rule["table"], rule["chain"])
        is_first = place not in first_of_chain
        first_of_chain.add(place)
        if _calls(rule, name) or name in (rule["table"], rule["chain"]):
            found.append({"place": place, "first": is_first, "expr": rule.get("expr")})
    return found


def _all(listing: Listing, kind: str) -> Iterator[dict[str, Any]]:
    return (entry[kind] for entry in listing if isinstance(entry.get(kind), dict))


def _calls(rule: dict[str, Any], name: str) -> bool:
    return any(
        isinstance(statement, dict) and statement.get("jump") == {"target": name}
        for statement in rule.get("expr", ())
    )


def _door(chain: dict[str, Any], wanted: Wanted) -> Iterator[Command]:
    place = {"family": chain["family"], "table": chain["table"]}
    yield {"add": {"chain": {**place, "name": wanted.name}}}
    for expression in _admissions(wanted, chain["family"]):
        yield {"add": {"rule": {**place, "chain": wanted.name, "expr": expression}}}
    jump = [_port(wanted), {"jump": {"target": wanted.name}}]
    yield {"insert": {"rule": {**place, "chain": chain["name"], "expr": jump}}}


def _refusal(wanted: Wanted) -> Iterator[Command]:
    place = {"family": "inet", "table": wanted.name}
    hook = {"type": "filter", "hook": "input", "prio": 0, "policy": "accept"}
    yield {"add": {"table": {"family": "inet", "name": wanted.name}}}
    yield {"add": {"chain": {**place, "name": "input", **hook}}}
    # Only what opens a connection is refused: those that are in stay in, as with the allow-list.
    opening = _match({"&": [{"payload": {"protocol": "tcp", "field": "flags"}}, ["syn", "ack"]]}, "syn")
    for expression in _admissions(wanted, "inet"):
        yield {"add": {"rule": {**place, "chain": "input", "expr": [_port(wanted), *expression]}}}
    yield {"add": {"rule": {**place, "chain": "input", "expr": [_port(wanted), opening, {"drop": None}]}}}


def _admissions(wanted: Wanted, family: str) -> Iterator[list[Command]]:
    """What the chain lets pass; this host itself always."""
    if wanted.everybody:
        yield [{"accept": None}]
        return
    yield [_match({"meta": {"key": "iifname"}}, "lo"), {"accept": None}]
    for network in wanted.networks:
        own_family = "ip" if network.version == 4 else "ip6"
        if family in ("inet", own_family):
            source = {"payload": {"protocol": own_family, "field": "saddr"}}
            yield [_match(source, _written(network)), {"accept": None}]


def _match(left: Command, right: Any) -> Command:
    return {"match": {"op": "==", "left": left, "right": right}}


def _port(wanted: Wanted) -> Command:
    return _match({"payload": {"protocol": "tcp", "field": "dport"}}, wanted.port)


def _written(network: Network) -> Any:
    if network.prefixlen == network.max_prefixlen:
        return str(network.network_address)
    return {"prefix": {"addr": str(network.network_address), "len": network.prefixlen}}


def legacy_order(wanted: Wanted, families: Iterable[str]) -> Command:
    """What relocd.net.legacy is asked to put into the legacy tables."""
    return {
        "do": "apply",
        "name": wanted.name,
        "port": wanted.port,
        "everybody": wanted.everybody,
        "networks": {
            family: [str(n) for n in wanted.networks if (n.version == 4) == (family == "ip")]
            for family in families
        },
    }
