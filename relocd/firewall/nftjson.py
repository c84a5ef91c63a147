"""What ``nft -j list ruleset`` prints (libnftables-json(5)), as chains."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from relocd.firewall.nftmatch import Sets, condition_of, truth_of_value
from relocd.firewall.ruleset import Act, Chain, Condition, Hook, Rule

Listing = list[dict[str, Any]]

#: Hooks that packets to this host pass on their way in.
_HOOKS = ("ingress", "prerouting", "input")
_UNCERTAIN_FAMILIES = ("netdev", "bridge")  # they see some devices only
_VERDICTS = {"accept": Act.ACCEPT, "drop": Act.DROP, "reject": Act.DROP, "return": Act.RETURN}
_WITHOUT_EFFECT = (
    "continue",
    "counter",
    "log",
    "mangle",
    "ct helper",
    "ct timeout",
    "ct expectation",
    "notrack",
    "set",
    "map",
)
_HANDLE = re.compile(r"(?P<text>.*?)\s*# handle (?P<handle>\d+)$")
_OPENING = re.compile(r"\s*(?P<what>table|chain) (?P<name>[^{]*?) \{")


def chains_of(listing: Listing, text: str = "") -> list[Chain]:
    """The chains; ``text`` is what ``nft -a list ruleset`` prints, by which rules are named.

    Tables with rules of iptables-nft that nft cannot show are left out: ``iptables_tables`` names them.
    """
    texts = texts_of(text)
    left_out = iptables_tables(listing)
    sets = _sets_of(listing)
    rules: dict[tuple[str, str, str], list[Rule]] = {}
    for rule in _all(listing, "rule"):
        family, table = str(rule["family"]), str(rule["table"])
        shown = texts.get((family, table, rule.get("handle", 0))) or _fallback(rule)
        found = rules.setdefault((family, table, str(rule["chain"])), [])
        found += _rules_of(rule, shown, sets.get((family, table), {}))
    return [
        _chain(chain, tuple(rules.get((chain["family"], chain["table"], chain["name"]), ())))
        for chain in _all(listing, "chain")
        if (chain["family"], chain["table"]) not in left_out
    ]


def iptables_tables(listing: Listing) -> set[tuple[str, str]]:
    """Family and name of the tables that only iptables-nft can show in full."""
    return {
        (str(rule["family"]), str(rule["table"]))
        for rule in _all(listing, "rule")
        if any("xt" in statement for statement in rule.get("expr", ()) if isinstance(statement, dict))
    }


def texts_of(text: str) -> dict[tuple[str, str, int], str]:
    """Family, table and handle of each rule to its text, from ``nft -a list ruleset``."""
    found: dict[tuple[str, str, int], str] = {}
    family = table = ""
    for line in text.splitlines():
        opening = _OPENING.match(line)
        if opening and opening["what"] == "table":
            family, _, table = opening["name"].partition(" ")
        elif not opening and (match := _HANDLE.match(line.strip())):
            found[family, table, int(match["handle"])] = match["text"]
    return found


def _all(listing: Listing, kind: str) -> Iterator[dict[str, Any]]:
    return (entry[kind] for entry in listing if isinstance(entry.get(kind), dict))


def _fallback(rule: Mapping[str, Any]) -> str:
    return f"rule with handle {rule.get('handle', '?')}"


def _sets_of(listing: Listing) -> dict[tuple[str, str], Sets]:
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for kind in ("set", "map"):
        for entry in _all(listing, kind):
            found.setdefault((entry["family"], entry["table"]), {})[entry["name"]] = entry.get("elem", [])
    return dict(found)


def _chain(chain: Mapping[str, Any], rules: tuple[Rule, ...]) -> Chain:
    hook = None
    if chain.get("hook") in _HOOKS and chain.get("type") in ("filter", "nat"):
        policy = chain.get("policy", "accept")
        hook = Hook(str(chain["hook"]), int(chain.get("prio", 0)), accepts=policy != "drop")
    certain = chain["family"] not in _UNCERTAIN_FAMILIES and chain.get("hook") != "ingress"
    return Chain("nft", chain["family"], chain["table"], chain["name"], rules, hook, certain)


def _rules_of(rule: Mapping[str, Any], text: str, sets: Sets) -> Iterator[Rule]:
    """One rule, or one for each entry of a verdict map, whose keys exclude each other."""
    conditions: list[Condition] = []
    for statement in rule.get("expr", ()):
        name: str
        value: Any
        name, value = next(iter(statement.items())) if isinstance(statement, dict) else (str(statement), {})
        if name == "match":
            conditions.append(condition_of(value, sets))
        elif name == "vmap":
            yield from _verdict_map(text, tuple(conditions), value, sets)
            return
        elif name == "xt" or name in ("limit", "quota", "ct count"):
            conditions.append(_unknown)
        elif name not in _WITHOUT_EFFECT:
            yield _verdict(text, tuple(conditions), name, value)
            return


def _unknown(_: object) -> None:
    """A condition that cannot be read."""


def _verdict(text: str, conditions: tuple[Condition, ...], name: str, value: Any) -> Rule:
    if name in ("jump", "goto") and isinstance(value, dict):
        return Rule(text, conditions, Act[name.upper()], str(value.get("target")))
    return Rule(text, conditions, _VERDICTS.get(name, Act.UNKNOWN))


def _verdict_map(
    text: str, conditions: tuple[Condition, ...], value: Mapping[str, Any], sets: Sets
) -> Iterator[Rule]:
    data = value.get("data")
    elements = sets.get(data[1:]) if isinstance(data, str) else (data or {}).get("set")
    if not isinstance(elements, list):
        yield Rule(text, conditions, Act.UNKNOWN)
        return
    for element in elements:
        if not isinstance(element, list) or len(element) != 2 or not isinstance(element[1], dict):
            yield Rule(text, conditions, Act.UNKNOWN)
            continue
        key, (name, argument) = element[0], next(iter(element[1].items()))
        own = truth_of_value(value.get("key"), key, sets)
        yield _verdict(text, (*conditions, own), name, argument)
