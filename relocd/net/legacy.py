"""Edits the legacy iptables tables with python-iptables, as a process of its own: ``python -m relocd.net.legacy``.

libiptc keeps its state in the process, is not safe between threads, and blocks. It takes one order, a JSON object,
on stdin, and says nothing; what went wrong is on stderr, with exit code 1. Each table is changed by one commit.
"""

from __future__ import annotations

import fcntl
import json
import sys
from pathlib import Path
from typing import Any

#: The lock that iptables itself takes (its option -w).
LOCK = Path("/run/xtables.lock")


def apply(iptc: Any, family: str, order: dict[str, Any]) -> None:
    """Replace our chain and the rule that calls it, in one commit."""
    table = _open(iptc, family)
    _remove_from(iptc, table, order["name"])
    chain = table.create_chain(order["name"])
    for rule in _rules(iptc, family, order):
        chain.append_rule(rule)
    call = _rule(iptc, family, order["port"], order["name"])
    iptc.Chain(table, "INPUT").insert_rule(call)
    table.commit()


def remove(iptc: Any, family: str, name: str) -> None:
    """Remove our chain and what calls it; nothing else is touched."""
    table = _open(iptc, family)
    if _remove_from(iptc, table, name):
        table.commit()


def _open(iptc: Any, family: str) -> Any:
    table = iptc.Table(iptc.Table.FILTER) if family == "ip" else iptc.Table6(iptc.Table6.FILTER)
    table.autocommit = False
    table.refresh()
    return table


def _remove_from(iptc: Any, table: Any, name: str) -> bool:
    if not table.is_chain(name):
        return False
    for chain in table.chains:
        for rule in [rule for rule in chain.rules if rule.target is not None and rule.target.name == name]:
            chain.delete_rule(rule)
    own = iptc.Chain(table, name)
    own.flush()
    table.delete_chain(name)
    return True


def _rules(iptc: Any, family: str, order: dict[str, Any]) -> list[Any]:
    if order["everybody"]:
        return [_rule(iptc, family, order["port"], "ACCEPT")]
    loopback = _rule(iptc, family, order["port"], "ACCEPT")
    loopback.in_interface = "lo"
    rules = [loopback]
    for network in order["networks"][family]:
        rule = _rule(iptc, family, order["port"], "ACCEPT")
        rule.src = network
        rules.append(rule)
    # Only what opens a connection is refused: those that are in stay in.
    return [*rules, _rule(iptc, family, order["port"], "DROP", opening=True)]


def _rule(iptc: Any, family: str, port: int, target: str, *, opening: bool = False) -> Any:
    rule = iptc.Rule() if family == "ip" else iptc.Rule6()
    rule.protocol = "tcp"
    match = rule.create_match("tcp")
    match.dport = str(port)
    if opening:
        match.syn = ""
    rule.target = iptc.Target(rule, target)
    return rule


def main() -> int:
    """One order, under the lock."""
    order = json.load(sys.stdin)
    with LOCK.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            import iptc

            for family in order["networks"]:
                if order["do"] == "apply":
                    apply(iptc, family, order)
                else:
                    remove(iptc, family, order["name"])
        except Exception as error:  # noqa: BLE001 - whatever it is, the daemon tells it
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
