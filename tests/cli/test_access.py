"""relocctl firewall and relocctl peers, as people read them."""

from __future__ import annotations

from pathlib import Path

import pytest

from relocd.cli import access
from relocd.cli.client import Client, DaemonUnavailableError
from relocd.firewall.plan import own_name
from relocd.net import netfilter
from relocd.net.names import instance_tag

PEER = {
    "pattern": r"^hosta\.example\.org$",
    "networks": ["192.0.2.1/32"],
    "names": {"hosta.example.org": ["192.0.2.1"], "gone": []},
    "everybody": False,
    "reason": "",
    "verdict": "blocked",
    "because": "the policy of nft table inet f, chain input, is drop",
}
BLOCKED = {
    "mode": "check",
    "flavours": ["nftables"],
    "port": 8002,
    "verdict": "blocked",
    "because": PEER["because"],
    "next": "Let the peers in there.",
    "peers": [PEER],
}


def test_what_is_blocked_names_the_rule_and_the_next_step() -> None:
    assert access.firewall_text(BLOCKED).splitlines() == [
        "Packet filters in force: nftables. Setting: check.",
        r"  ^hosta\.example\.org$",
        "    hosta.example.org is 192.0.2.1",
        "    gone is a name without an address",
        "    that is 192.0.2.1/32",
        "    blocked: the policy of nft table inet f, chain input, is drop",
        "Port 8002: blocked",
        "    the policy of nft table inet f, chain input, is drop",
        "    Let the peers in there.",
    ]


def test_everybody_and_nobody_have_their_reasons() -> None:
    everybody = {"pattern": "a.*", "everybody": True, "reason": "it is so", "verdict": "open", "because": ""}
    nobody = {"pattern": "@", "everybody": False, "reason": "no text", "verdict": "open", "networks": []}
    told = {
        "mode": "manage",
        "in_place": True,
        "name": "relocd-1",
        "peers": [everybody, nobody],
        "open_to_all": True,
    }
    text = access.firewall_text(told | {"port": 8002, "verdict": "open", "flavours": []})
    assert "in force: none" in text
    assert "named relocd-1" in text
    assert "    everybody: it is so\n    open\n  @\n    nobody: no text\nPort 8002: open\n" in text
    assert text.endswith("the allow-list alone keeps it out.")


def test_what_a_name_server_says_does_not_steer_the_terminal() -> None:
    name = {"name": "a\x1b[2J", "confirmed": False, "leads_to": ["192.0.2.9"]}
    row = {
        "address": "192.0.2.1",
        "admitted": False,
        "reason": "no",
        "lookup": "done",
        "names": [name],
        "next": "Do.",
    }
    patterns = [{"pattern": "a", "matches": ""}, {"pattern": "b", "matches": "c"}]
    assert access.peers_text({"addresses": [row | {"patterns": patterns}]}).splitlines() == [
        "192.0.2.1: refused",
        "    no",
        "    its name: a?[2J, which leads to 192.0.2.9: not confirmed",
        "    pattern a: no",
        "    pattern b: matches c",
        "    Do.",
    ]


@pytest.mark.parametrize(
    ("lookup", "said"), [("timeout", "not found out in time"), ("done", "there is none")]
)
def test_no_name_has_a_reason(lookup: str, said: str) -> None:
    assert said in access.peers_text({"addresses": [{"address": "a", "lookup": lookup, "names": []}]})


def test_rules_are_removed_without_a_daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    removed: list[str] = []
    monkeypatch.setattr(netfilter, "remove", lambda name: removed.append(name) or True)
    monkeypatch.setattr(access.os, "geteuid", lambda: 0)
    client = Client(str(tmp_path / "control.sock"))
    assert access._remove(client)["removed"]
    assert removed == [own_name(instance_tag(str(tmp_path)))]
    monkeypatch.setattr(access.os, "geteuid", lambda: 1000)
    with pytest.raises(DaemonUnavailableError):
        access._remove(client)
