"""Verdicts on real rule sets of a real kernel, and ours put among them and taken away; namespaces of their own."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import Path

import pytest

from relocd.errors import FirewallError
from relocd.firewall.plan import Wanted
from relocd.firewall.ruleset import Packet, Verdict, judge
from relocd.net import netfilter
from tests.net.namespace import private_network

pytestmark = pytest.mark.netns

PORT = 8002
OURS = "relocd-ab12"
INPUT = "add table inet f; add chain inet f input { type filter hook input priority 0; policy drop; }"
OPEN = "add table inet f; add chain inet f input { type filter hook input priority 0; }"
WANTED = Wanted(OURS, PORT, (ip_network("10.0.0.0/24"), ip_network("2001:db8::1/128")))


@pytest.fixture(autouse=True)
def _network() -> Iterator[None]:
    with private_network():
        yield


def sh(line: str, text_in: str | None = None) -> str:
    done = subprocess.run(["sh", "-c", line], input=text_in, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def verdict(source: str, filters: netfilter.Filters | None = None) -> Verdict:
    return judge((filters or netfilter.read()).chains, Packet(ip_network(source), PORT))


def outcome(source: str) -> str:
    return verdict(source).outcome.value


def everything() -> str:
    """All rules of this namespace, without counters."""
    legacy = "".join(sh(f"{ip}tables-legacy-save -t filter | grep -v '^#'") for ip in ("ip", "ip6"))
    return sh("nft -s list ruleset") + sh("iptables-nft-save | grep -v '^#'; true") + legacy


@pytest.mark.parametrize(
    ("rules", "expected", "named"),
    [
        ("", "open", ""),
        (OPEN, "open", ""),
        (INPUT, "blocked", "the policy of nft table inet f, chain input"),
        (f"{INPUT}; add rule inet f input tcp dport 8002 accept", "open", ""),
        (
            f"{INPUT}; add rule inet f input tcp dport {{ 22, 8000-8010 }} ip saddr 10.0.0.0/8 accept",
            "open",
            "",
        ),
        (f"{INPUT}; add rule inet f input ip saddr {{ 10.1.0.0/16, 10.0.0.1-10.0.0.9 }} accept", "open", ""),
        (f"{INPUT}; add rule inet f input ip saddr != 10.0.0.0/8 accept", "blocked", "policy"),
        (f"{INPUT}; add rule inet f input udp dport 8002 accept", "blocked", "policy"),
        (f"{INPUT}; add rule inet f input ip6 saddr ::/0 accept", "blocked", "policy"),
        (f"{INPUT}; add rule inet f input ct state established,related accept", "blocked", "policy"),
        (f"{INPUT}; add rule inet f input ct state vmap {{ new : accept, invalid : drop }}", "open", ""),
        (f"{INPUT}; add rule inet f input ct state new tcp flags syn / fin,syn,rst,ack accept", "open", ""),
        (f"{INPUT}; add rule inet f input tcp flags syn accept", "open", ""),
        (f"{INPUT}; add rule inet f input tcp flags != syn accept", "blocked", "policy"),
        (f"{INPUT}; add rule inet f input iifname lo accept", "blocked", "policy"),
        (f"{INPUT}; add rule inet f input iifname eth0 accept", "undecided", 'iifname "eth0" accept'),
        (f"{INPUT}; add rule inet f input limit rate 1/second accept", "undecided", "limit rate"),
        (f"{INPUT}; add rule inet f input meta l4proto tcp fib daddr type local accept", "open", ""),
        (f"{INPUT}; add rule inet f input ip daddr 224.0.0.0/4 accept", "blocked", "policy"),
        (f"{INPUT}; add rule inet f input ip daddr 10.0.0.2 accept", "undecided", "ip daddr"),
        (
            f"{OPEN}; add rule inet f input tcp dport 8000-8100 counter reject",
            "blocked",
            "tcp dport 8000-8100",
        ),
        (f"{OPEN}; add rule inet f input meta mark 7 drop", "undecided", "0x00000007"),
        (
            f"{INPUT}; add set inet f good {{ type ipv4_addr; flags interval; elements = {{ 10.0.0.0/24 }}; }}; "
            "add rule inet f input ip saddr @good tcp dport 8002 accept",
            "open",
            "",
        ),
        (
            f"{INPUT}; add set inet f good {{ type ipv4_addr; elements = {{ 10.0.0.2 }}; }}; "
            "add rule inet f input ip saddr @good accept",
            "blocked",
            "policy",
        ),
        (
            f"{INPUT}; add chain inet f peers; add rule inet f peers tcp dport 8002 accept; "
            "add rule inet f input ip saddr vmap { 10.0.0.0/24 : jump peers, 10.9.0.0/16 : drop }",
            "open",
            "",
        ),
        (
            f"{OPEN}; add chain inet f zone; add rule inet f zone tcp dport 22 accept; add rule inet f zone drop; "
            "add rule inet f input iifname eth0 goto zone; add rule inet f input goto zone",
            "blocked",
            "'drop' in nft table inet f, chain zone",
        ),
        (
            f"{INPUT}; add rule inet f input accept; add table ip raw; "
            "add chain ip raw early { type filter hook prerouting priority -300; }; "
            "add rule ip raw early tcp dport 8002 drop",
            "blocked",
            "chain early",
        ),
        (
            "add table ip6 f; add chain ip6 f i { type filter hook input priority 0; policy drop; }",
            "open",
            "",
        ),
        (
            "add table netdev n; "
            "add chain netdev n i { type filter hook ingress device lo priority 0; policy drop; }",
            "undecided",
            "netdev",
        ),
    ],
)
def test_verdicts_on_nft(rules: str, expected: str, named: str) -> None:
    sh("nft -f -", rules.replace("; add", "\nadd"))
    found = verdict("10.0.0.1/32")
    assert found.outcome.value == expected, found
    assert named in found.because


@pytest.mark.parametrize("command", ["iptables-nft", "iptables-legacy"])
@pytest.mark.parametrize(
    ("rules", "expected", "named"),
    [
        ("-P INPUT DROP", "blocked", "table ip filter, chain INPUT, is drop"),
        ("-P INPUT DROP; -A INPUT -m state --state ESTABLISHED -j ACCEPT", "blocked", "policy"),
        ("-P INPUT DROP; -A INPUT -p tcp -m multiport --dports 22,8000:8010 -j ACCEPT", "open", ""),
        (
            "-P INPUT DROP; -A INPUT -m conntrack --ctstate NEW -s 10.0.0.0/8 -p tcp --syn -j ACCEPT",
            "open",
            "",
        ),
        ("-P INPUT DROP; -A INPUT ! -s 10.0.0.0/8 -j ACCEPT", "blocked", "policy"),
        ("-P INPUT DROP; -A INPUT -p udp --dport 8002 -j ACCEPT", "blocked", "policy"),
        (
            "-P INPUT DROP; -A INPUT -i eth0 -j ACCEPT; -A INPUT -m state --state RELATED -j DROP",
            "undecided",
            "eth0",
        ),
        (
            "-N UFW; -A INPUT -j UFW; -A UFW -m addrtype --dst-type LOCAL -j RETURN; -A UFW -j DROP",
            "open",
            "",
        ),
        ("-N deep; -A INPUT -g deep; -A deep -p tcp -j REJECT", "blocked", "-A deep -p tcp"),
        ("-A INPUT -p tcp --dport 8002 -m limit --limit 1/s -j DROP", "undecided", "limit"),
        ("-A INPUT -j LOG; -A INPUT -j ACCEPT", "open", ""),
        ("-t raw -A PREROUTING -p tcp --dport 8002 -j DROP", "blocked", "chain PREROUTING"),
        ("-t nat -A PREROUTING -p tcp --dport 8002 -j REDIRECT --to-ports 80", "undecided", "REDIRECT"),
    ],
)
def test_verdicts_on_iptables(command: str, rules: str, expected: str, named: str) -> None:
    for rule in rules.split("; "):
        sh(f"{command} {rule}")
    found = verdict("10.0.0.1/32")
    assert found.outcome.value == expected, found
    assert named in found.because
    assert outcome("2001:db8::1/128") == "open"


def test_a_network_is_open_only_as_a_whole() -> None:
    sh(f"nft '{INPUT}; add rule inet f input ip saddr 10.0.0.0/25 accept'")
    assert [outcome(n) for n in ("10.0.0.0/26", "10.0.0.0/24", "10.0.1.0/24")] == [
        "open",
        "undecided",
        "blocked",
    ]


RULESETS = Path(__file__).parent / "rulesets"
SECOND = "add table ip g; add chain ip g i { type filter hook input priority 5; policy drop; }"
SETUPS = {
    "nft": [f"nft '{INPUT}; add rule inet f input ct state established accept'"],
    "reject-at-end": [
        f"nft '{OPEN}; add rule inet f input tcp dport 22 accept; add rule inet f input reject'"
    ],
    "two-tables": [f"nft '{INPUT}; {SECOND}'"],
    "iptables-nft": [
        "iptables-nft -P INPUT DROP",
        "iptables-nft -A INPUT -m state --state ESTABLISHED -j ACCEPT",
    ],
    "legacy": [
        "iptables-legacy -P INPUT DROP",
        "ip6tables-legacy -P INPUT DROP",
        "iptables-legacy -A INPUT -i lo -j ACCEPT",
    ],
    "both": [f"nft '{INPUT}'", "iptables-legacy -P INPUT DROP", "iptables-legacy -A INPUT -i lo -j ACCEPT"],
    "none": ["true"],
    "ufw-legacy": [f"{ip}-legacy-restore < {RULESETS}/ufw.{ip}" for ip in ("iptables", "ip6tables")],
    "ufw-nft": [f"{ip}-nft-restore < {RULESETS}/ufw.{ip}" for ip in ("iptables", "ip6tables")],
    "firewalld-iptables": [
        f"{ip}-nft-restore < {RULESETS}/firewalld.{ip}" for ip in ("iptables", "ip6tables")
    ],
    "firewalld-nft": [f"nft -f {RULESETS}/firewalld.nft"],
}


@pytest.mark.parametrize("setup", [name for name in SETUPS if name.startswith(("ufw", "firewalld"))])
def test_what_ufw_and_firewalld_set_up_is_judged_as_it_works(setup: str) -> None:
    """They let 10.77.0.1 reach the port, firewalld the trusted 10.99.0.0/16 too, and everybody port 22."""
    for line in SETUPS[setup]:
        sh(line)
    chains = netfilter.read().chains
    trusted = ["10.99.1.1/32"] if setup.startswith("firewalld") else []
    for source in ("10.77.0.1/32", "10.77.0.2/32", "10.99.1.1/32", "fd77::1/128"):
        found = judge(chains, Packet(ip_network(source), PORT))
        expected = "open" if source in ("10.77.0.1/32", *trusted) else "blocked"
        assert found.outcome.value == expected, (source, found)
        assert found.because == "" or "policy" in found.because or "reject" in found.because.lower()
        assert judge(chains, Packet(ip_network(source), 22)).outcome.value == "open"


@pytest.mark.parametrize("setup", SETUPS)
def test_ours_lets_peers_in_and_nobody_else_and_goes_without_a_trace(setup: str) -> None:
    for line in SETUPS[setup]:
        sh(line)
    sh(
        "iptables-legacy -L; ip6tables-legacy -L"
    )  # the kernel sets up these tables, empty, when they are first used
    before = everything()
    filters = netfilter.apply(WANTED)
    assert [verdict(n, filters).outcome.value for n in ("10.0.0.0/24", "2001:db8::1/128")] == ["open", "open"]
    assert [verdict(n, filters).outcome.value for n in ("10.0.1.1/32", "2001:db8::2/128")] == ["blocked"] * 2
    once, trace = everything(), filters.trace(OURS)
    again = netfilter.apply(WANTED)
    assert (everything(), again.trace(OURS)) == (once, trace)
    shown = iter(once.splitlines())
    assert all(line in shown for line in before.splitlines()), "all rules of others are there, in their order"
    assert netfilter.remove(OURS)
    assert everything() == before
    assert not netfilter.remove(OURS)


def test_iptables_can_still_show_its_table() -> None:
    for line in SETUPS["iptables-nft"]:
        sh(line)
    netfilter.apply(WANTED)
    assert f"-A INPUT -p tcp -m tcp --dport {PORT} -j {OURS}" in sh("iptables-nft-save")


def test_everybody() -> None:
    sh(f"nft '{INPUT}'")
    netfilter.apply(Wanted(OURS, PORT, (), everybody=True))
    assert (outcome("10.9.9.9/32"), outcome("::/0")) == ("open", "open")
    assert netfilter.remove(OURS)


def test_the_trace_tells_whether_somebody_touched_ours() -> None:
    sh(f"nft '{INPUT}'")
    trace = netfilter.apply(WANTED).trace(OURS)
    assert netfilter.read().trace(OURS) == trace
    sh("nft add rule inet f input tcp dport 22 accept")
    assert netfilter.read().trace(OURS) == trace
    sh("nft insert rule inet f input tcp dport 8002 drop")
    assert netfilter.read().trace(OURS) != trace
    sh("nft flush chain inet f input")
    assert netfilter.read().trace(OURS) != trace


@pytest.mark.parametrize("family", ["ip", "ip6"])
def test_the_trace_tells_whether_somebody_touched_ours_in_legacy_tables(family: str) -> None:
    for name in ("ip", "ip6"):
        sh(f"{name}tables-legacy -P INPUT DROP")
    trace = netfilter.apply(WANTED).trace(OURS)
    assert netfilter.read().trace(OURS) == trace
    sh(f"{family}tables-legacy -A INPUT -p tcp --dport 22 -j ACCEPT")
    sh(f"{family}tables-legacy -t mangle -A INPUT -p tcp --dport 22 -j ACCEPT")
    assert netfilter.read().trace(OURS) == trace
    sh(f"{family}tables-legacy -I INPUT -p tcp --dport 8000:9000 -j DROP")
    assert netfilter.read().trace(OURS) != trace  # ours is not the first any more
    assert netfilter.apply(WANTED).trace(OURS) == trace
    sh(f"{family}tables-legacy -F {OURS}")
    assert netfilter.read().trace(OURS) != trace


def test_a_rule_of_others_that_is_earlier_is_named() -> None:
    early = "add table ip e; add chain ip e p { type filter hook prerouting priority -300; }"
    sh(f"nft '{early}; add rule ip e p tcp dport 8000-8100 drop'")
    found = verdict("10.0.0.1/32", netfilter.apply(WANTED))
    assert found.because == "'tcp dport 8000-8100 drop' in nft table ip e, chain p"


def test_without_nft_what_it_would_show_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    find = netfilter._find
    monkeypatch.setattr(netfilter, "_find", lambda program: None if program == "nft" else find(program))
    filters = netfilter.read()
    assert filters.listing is None
    assert "not installed" in filters.nft_trouble
    with pytest.raises(FirewallError, match="nft is not installed") as caught:
        netfilter.apply(WANTED)
    assert "nftables" in caught.value.hint


def test_a_rule_set_that_is_too_large_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(netfilter, "MAX_LISTING_BYTES", 10)
    with pytest.raises(FirewallError, match="too much to look at"):
        netfilter.apply(WANTED)


def test_a_program_that_fails_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FirewallError, match=r"nft list nonsense failed: .*syntax error"):
        netfilter._run(["nft", "list", "nonsense"])
    with pytest.raises(FirewallError, match="cannot be run"):
        netfilter._run([os.devnull])
    monkeypatch.setattr(netfilter, "TIMEOUT_S", 0.05)
    with pytest.raises(FirewallError, match="does not end"):
        netfilter._run(["sleep", "5"])
