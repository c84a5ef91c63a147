"""What the programs print, as chains: what is known is read, and what is not stays undecided, never open."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relocd.firewall.nftjson import chains_of, iptables_tables, texts_of
from relocd.firewall.ruleset import Outcome, Packet, Verdict, judge
from relocd.firewall.savetext import chains_of_save, is_in_force

PACKET = Packet(ip_network("10.0.0.1/32"), 8002)
TABLE = {"family": "inet", "table": "f"}
BASE = {"chain": {**TABLE, "name": "i", "type": "filter", "hook": "input", "prio": 0, "policy": "drop"}}
PORT = {"match": {"op": "==", "left": {"payload": {"protocol": "tcp", "field": "dport"}}, "right": 8002}}


def rule(*expr: Any, chain: str = "i", handle: int = 7) -> dict[str, Any]:
    return {"rule": {**TABLE, "chain": chain, "handle": handle, "expr": list(expr)}}


def verdict(*listing: dict[str, Any], text: str = "") -> Verdict:
    return judge(chains_of([BASE, *listing], text), PACKET)


def test_a_rule_is_known_by_its_text_or_by_its_handle() -> None:
    text = "table inet f { # handle 1\n\tchain i { # handle 2\n\t\ttcp dport 8002 drop # handle 7\n\t}\n}\n"
    assert texts_of(text) == {("inet", "f", 7): "tcp dport 8002 drop"}
    drop = rule(PORT, {"drop": None})
    assert verdict(drop, text=text).because == "'tcp dport 8002 drop' in nft table inet f, chain i"
    assert "handle 7" in verdict(drop).because


@pytest.mark.parametrize(
    "statement",
    [
        {"match": {"op": "==", "left": {"socket": {"key": "wildcard"}}, "right": 1}},
        {"match": {"op": "==", "left": {"&": [{"meta": {"key": "mark"}}, 1]}, "right": 1}},
        {"match": {"op": "<", "left": {"meta": {"key": "hour"}}, "right": "12:00"}},
        {"match": {"op": "==", "left": {"payload": {"protocol": "ip", "field": "saddr"}}, "right": "@gone"}},
        {
            "match": {
                "op": "==",
                "left": {"payload": {"protocol": "ip", "field": "saddr"}},
                "right": "nonsense",
            }
        },
        {"match": {"op": "near", "left": {"payload": {"protocol": "tcp", "field": "dport"}}, "right": 1}},
        {"match": {"op": "==", "left": {"concat": [1, 2]}, "right": {"concat": [1, 2]}}},
        {"limit": {"rate": 1, "per": "second"}},
    ],
)
def test_what_cannot_be_read_is_undecided(statement: dict[str, Any]) -> None:
    assert verdict(rule(statement, {"accept": None})).outcome is Outcome.UNDECIDED


@pytest.mark.parametrize(
    "last", [{"new-statement": 1}, {"queue": {"num": 1}}, {"dnat": {}}, {"jump": {"target": "x"}}]
)
def test_an_act_that_cannot_be_read_is_undecided(last: dict[str, Any]) -> None:
    assert verdict(rule(PORT, last)).outcome is Outcome.UNDECIDED


def test_jumps_that_never_end_are_undecided() -> None:
    loop = {"chain": {**TABLE, "name": "x"}}
    found = verdict(loop, rule({"jump": {"target": "x"}}), rule({"jump": {"target": "x"}}, chain="x"))
    assert found.outcome is Outcome.UNDECIDED


def test_a_named_map_of_verdicts() -> None:
    key = {"payload": {"protocol": "ip", "field": "saddr"}}
    known = {"map": {**TABLE, "name": "m", "elem": [["10.0.0.1", {"accept": None}], ["*", {"drop": None}]]}}
    assert verdict(known, rule({"vmap": {"key": key, "data": "@m"}})).outcome is Outcome.OPEN
    assert verdict(rule({"vmap": {"key": key, "data": "@m"}})).outcome is Outcome.UNDECIDED


def test_tables_with_matches_of_iptables_are_left_to_iptables() -> None:
    listing = [BASE, rule({"xt": {"type": "match", "name": "conntrack"}}, {"accept": None})]
    assert iptables_tables(listing) == {("inet", "f")}
    assert chains_of(listing) == []


SAVED = "*filter\n:INPUT {policy} [0:0]\n:own - [0:0]\n{rules}\nCOMMIT\n"


def saved(rules: str, policy: str = "DROP") -> Verdict:
    return judge(
        chains_of_save(SAVED.format(policy=policy, rules=rules), program="iptables", family="ip"), PACKET
    )


@pytest.mark.parametrize(
    ("rules", "outcome"),
    [
        ("-A INPUT -p tcp -m tcp --dport 8000:8010 -j ACCEPT", Outcome.OPEN),
        ("-A INPUT -p tcp -m tcp --dport :9000 -j ACCEPT", Outcome.OPEN),
        ("-A INPUT -p tcp -m tcp ! --dport 8002 -j ACCEPT", Outcome.BLOCKED),
        ("-A INPUT -j own\n-A own -s 10.0.0.0/8 -j ACCEPT", Outcome.OPEN),
        ("-A INPUT -j own\n-A own -s 10.0.0.0/8 -j RETURN\n-A own -j ACCEPT", Outcome.BLOCKED),
        ('-A INPUT -m comment --comment "a -j DROP" -j ACCEPT', Outcome.OPEN),
        ("-A INPUT -m set --match-set good src -j ACCEPT", Outcome.UNDECIDED),
        ("-A INPUT -d 10.0.0.2/32 -j ACCEPT", Outcome.UNDECIDED),
        ("-A INPUT -d 224.0.0.0/4 -j ACCEPT", Outcome.BLOCKED),
        ("-A INPUT -j NEWTARGET --option", Outcome.UNDECIDED),
        ("-A INPUT -m comment --comment 'open", Outcome.UNDECIDED),
        ("-A INPUT -p icmp -m icmp --icmp-type 8 -j ACCEPT", Outcome.BLOCKED),
    ],
)
def test_what_iptables_prints(rules: str, outcome: Outcome) -> None:
    assert saved(rules).outcome is outcome


def test_empty_tables_are_not_in_force() -> None:
    assert not is_in_force("*filter\n:INPUT ACCEPT [0:0]\n:own - [0:0]\nCOMMIT\n")
    assert is_in_force("*filter\n:INPUT DROP [0:0]\nCOMMIT\n")
    assert is_in_force("*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -j ACCEPT\nCOMMIT\n")


words = st.sampled_from(
    [*"!sgjp", "-j", "ACCEPT", "DROP", "own", "-i", "lo", "--dport", "8002", "-p", "tcp", "-s"]
)


@given(st.lists(words, max_size=12))
def test_no_rule_is_too_strange(rule: list[str]) -> None:
    assert saved(f"-A INPUT {' '.join(rule)}").outcome in Outcome


simple = (
    st.none() | st.integers() | st.sampled_from(["tcp", "lo", "@m", "new", "10.0.0.0/8", "saddr", "dport"])
)
names = st.sampled_from(
    ["match", "op", "left", "right", "payload", "protocol", "field", "meta", "key", "set"]
)
values = st.recursive(
    simple, lambda v: st.lists(v, max_size=3) | st.dictionaries(names, v, max_size=3), max_leaves=8
)


@given(values, values)
def test_no_condition_is_too_strange(left: Any, right: Any) -> None:
    strange = {"match": {"op": "==", "left": left, "right": right}}
    assert verdict(rule(strange, {"accept": None})).outcome in Outcome
