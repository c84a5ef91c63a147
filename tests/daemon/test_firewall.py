"""The firewall on real hosts: peers get in, strangers do not, nothing is left, and the rules of others stay."""

from __future__ import annotations

import contextlib
import shutil
import socket
from collections.abc import Iterator
from ipaddress import IPv4Network
from pathlib import Path

import pytest
from attrs import evolve
from twisted.internet.task import Clock, deferLater

from relocd.config import Config
from relocd.config.model import FirewallMode
from relocd.daemon.context import Context
from relocd.daemon.firewall import INTERVAL_S, Firewall, _Keep
from relocd.firewall.peers import reach_of
from relocd.firewall.plan import Wanted
from relocd.firewall.ruleset import Outcome
from relocd.net import netfilter
from tests.net.namespace import private_network
from tests.reactor import run as run_coroutine
from tests.testbed.commands import run
from tests.testbed.daemons import PORT, READY_S, RelocdHost
from tests.testbed.netns import in_netns
from tests.testbed.network import BRIDGE, Host, Testbed

pytestmark = pytest.mark.netns

SHORT_S = 0.4  # for connections that nobody answers
PEER, PEER6, STRANGER6 = "10.77.0.1", "fd77::1", "fd77::9"
ALLOW = r"10\.77\.0\.1 fd77::1"
RULESETS = Path(__file__).parents[1] / "net" / "rulesets"
DROP = {
    "nft": [
        ["nft", "add table inet f; add chain inet f i { type filter hook input priority 0; policy drop; }"],
        [
            "nft",
            "add rule inet f i ct state established accept; add rule inet f i meta l4proto ipv6-icmp accept",
        ],
    ],
    "iptables-nft": [
        ["iptables-nft", "-P", "INPUT", "DROP"],
        ["iptables-nft", "-A", "INPUT", "-m", "state", "--state", "ESTABLISHED", "-j", "ACCEPT"],
        ["ip6tables-nft", "-P", "INPUT", "DROP"],
        ["ip6tables-nft", "-A", "INPUT", "-p", "ipv6-icmp", "-j", "ACCEPT"],
    ],
    "legacy": [
        ["iptables-legacy", "-P", "INPUT", "DROP"],
        ["iptables-legacy", "-A", "INPUT", "-m", "state", "--state", "ESTABLISHED", "-j", "ACCEPT"],
        ["ip6tables-legacy", "-P", "INPUT", "DROP"],
        ["ip6tables-legacy", "-A", "INPUT", "-p", "ipv6-icmp", "-j", "ACCEPT"],
    ],
    # What these programs set up, but for what lets the peer in (tests/net/rulesets).
    "firewalld": [["sh", "-c", f"grep -v 8002 {RULESETS}/firewalld.nft | nft -f -"]],
    "ufw": [
        ["sh", "-c", f"grep -v 8002 {RULESETS}/ufw.iptables | iptables-legacy-restore"],
        ["sh", "-c", f"grep -v 8002 {RULESETS}/ufw.ip6tables | ip6tables-legacy-restore"],
    ],
}


@pytest.fixture
def net() -> Iterator[Testbed]:
    with Testbed() as net:
        net.hosta.run(["ip", "address", "add", f"{PEER6}/64", "dev", BRIDGE, "nodad"])
        net.hosta.run(["ip", "address", "add", f"{STRANGER6}/64", "dev", BRIDGE, "nodad"])
        net.hostb.run(["ip", "address", "add", "fd77::2/64", "dev", BRIDGE, "nodad"])
        yield net


@contextlib.contextmanager
def relocd(host: Host, directory: Path, driver: str = "memory", **settings: str) -> Iterator[RelocdHost]:
    keys = {f"xen-relocation-{key.replace('_', '-')}": value for key, value in settings.items()}
    with RelocdHost(host, directory / host.name, {"driver": driver, **keys}) as daemon:
        yield daemon


def forbid(host: Host, flavour: str) -> None:
    for command in DROP[flavour]:
        host.run(command)
    host.run(["iptables-legacy", "-L"])  # the kernel sets up these tables, empty, when they are first used
    host.run(["ip6tables-legacy", "-L"])


def rules(host: Host) -> str:
    """All rules, without counters."""
    legacy = [host.run([f"{ip}tables-legacy-save", "-t", "filter"]) for ip in ("ip", "ip6")]
    lines = [line for text in legacy for line in text.splitlines() if not line.startswith(("#", ":"))]
    return host.run(["nft", "-s", "list", "ruleset"]) + "\n".join(lines)


def gets_in(host: Host, address: str, source: str = "") -> bool:
    """Does the kernel of ``address`` take the connection, and relocd answer?"""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with in_netns(host.netns), socket.socket(family, socket.SOCK_STREAM) as sock:
        sock.settimeout(SHORT_S)
        if source:
            sock.bind((source, 0))
        try:
            sock.connect((address, PORT))
            sock.settimeout(READY_S)
            sock.sendall(b"help\n")
            return bool(sock.recv(1))
        except OSError:
            return False


def until(daemon: RelocdHost, *, in_place: bool) -> None:
    """Ask until the rules are there, or are not."""
    for _ in range(600):
        if daemon.ask("firewall").get("in_place") is in_place:
            return
    pytest.fail("the firewall was not changed")


@pytest.mark.parametrize("flavour", [name for name in DROP if name != "legacy"])  # ufw is that, and more
def test_a_relocation_goes_through_and_nobody_else(net: Testbed, tmp_path: Path, flavour: str) -> None:
    a, b = net.hosts
    forbid(b, flavour)
    before = rules(b)
    domain = tmp_path / "web.cfg"
    domain.write_text('name = "web"\nmemory = 16\n')  # it finds nothing to boot from, and runs all the same
    with relocd(a, tmp_path, driver="qemu", connect_timeout=str(SHORT_S)) as source:
        source.relocctl("create", domain)
        with relocd(b, tmp_path, driver="qemu", hosts_allow=ALLOW) as target:
            assert not gets_in(a, b.address, PEER)
            told = target.relocctl("firewall", check=False)
            assert told.exit_code == 7
            legacy = flavour in ("legacy", "ufw")
            assert told.result["flavours"] == ["iptables-legacy" if legacy else "nftables"]
            assert ("reject with" if flavour == "firewalld" else "the policy of") in told.result["because"]
            assert "manage" in told.result["next"]
            assert source.relocctl("migrate", "web", b.address, check=False).exit_code == 6
            assert rules(b) == before
        with relocd(b, tmp_path, driver="qemu", hosts_allow=ALLOW, firewall="manage") as target:
            assert gets_in(a, b.address, PEER)
            assert gets_in(a, "fd77::2", PEER6)
            assert not gets_in(net.client, b.address)
            assert not gets_in(a, "fd77::2", STRANGER6)
            told = target.relocctl("firewall").result
            assert (told["verdict"], told["open_to_all"], told["in_place"]) == ("open", False, True)
            source.reload({"driver": "qemu"})  # with the patience that a relocation takes
            assert source.relocctl("migrate", "--live", "web", b.address).result["outcome"] == "completed"
            assert [(d["name"], d["state"]) for d in target.ask("list")["domains"]] == [("web", "running")]
            assert source.ask("list")["domains"] == []
            refused = target.relocctl("firewall", "--remove", check=False)
            assert refused.exit_code == 2
            assert "reload" in refused.result["hint"]
    assert rules(b) == before


@pytest.mark.parametrize("flavour", ["nft", "legacy"])
def test_what_a_crash_leaves_is_found(net: Testbed, tmp_path: Path, flavour: str) -> None:
    b = net.hostb
    forbid(b, flavour)
    before = rules(b)
    with relocd(b, tmp_path, hosts_allow=ALLOW, firewall="manage") as target:
        target.kill()
        left = rules(b)
        assert left != before
        target.start()
        assert rules(b) == left
        target.kill()
        assert target.relocctl("firewall", "--remove").result["removed"]
        assert rules(b) == before
        assert not target.relocctl("firewall", "--remove").result["removed"]
        target.start()
        target.kill()
        target.write_config({**target.settings, "xen-relocation-firewall": "off"})
        target.start()
        assert rules(b) == before


def test_a_reload_changes_it(net: Testbed, tmp_path: Path) -> None:
    a, b = net.hosts
    forbid(b, "nft")
    before = rules(b)
    with relocd(b, tmp_path, hosts_allow=ALLOW, firewall="off") as target:
        target.reload({**target.settings, "xen-relocation-firewall": "manage"})
        until(target, in_place=True)
        assert gets_in(a, b.address, PEER)
        target.reload({**target.settings, "xen-relocation-hosts-allow": r".*\.example\.org 10\.77\.0\.100"})
        while b.run(["nft", "list", "ruleset"]).count("table inet relocd-"):
            target.ask("info")
        assert gets_in(net.client, b.address)
        assert not gets_in(a, b.address, PEER)  # the port is open, and relocd itself refuses
        assert (
            r"the port is open for everybody for the pattern '.*\\.example\\.org'"
            in target.log_file.read_text()
        )
        target.reload({**target.settings, "xen-relocation-firewall": "check"})
        until(target, in_place=False)
        while rules(b) != before:
            target.ask("info")


def test_names_are_looked_up_anew(net: Testbed, tmp_path: Path) -> None:
    a, b = net.hosts
    forbid(b, "nft")
    own = Path("/etc/netns") / b.netns  # ip-netns(8) puts what is there over /etc
    own.mkdir(parents=True)
    hosts = own / "hosts"
    try:
        hosts.write_text(f"{PEER} peer.test\n")
        with relocd(b, tmp_path, hosts_allow=r"^peer\.test$", firewall="manage") as target:
            assert gets_in(a, b.address, PEER)
            assert target.ask("firewall")["peers"][0]["names"] == {"peer.test": [PEER]}
            hosts.write_text("10.77.0.100 peer.test\n")
            target.reload(target.settings)
            while "saddr 10.77.0.100" not in rules(b):
                target.ask("info")
            assert gets_in(net.client, b.address)
            assert not gets_in(a, b.address, PEER)
            hosts.write_text("\n")
            target.reload(target.settings)
            assert target.ask("firewall")["peers"][0]["names"] == {"peer.test": ["10.77.0.100"]}
    finally:
        shutil.rmtree(own)


def test_what_somebody_removed_is_put_back() -> None:
    wanted = Wanted("relocd-ab12", PORT, (IPv4Network("10.0.0.0/24"),))
    with private_network():
        changed, trace, findings = _Keep(wanted, None, [reach_of(r"10\.0\.0\.1")], {}).run()
        assert changed
        assert [finding.verdict.outcome for finding in findings] == [Outcome.OPEN]
        assert _Keep(wanted, (wanted, trace), [], {}).run() == (False, trace, [])
        run(["nft", "flush", "ruleset"])
        assert _Keep(wanted, (wanted, trace), [], {}).run() == (True, trace, [])
        assert _Keep(evolve(wanted, port=1), (wanted, trace), [], {}).run()[0]


def test_every_minute_it_is_looked_after(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    kept: list[Wanted] = []
    monkeypatch.setattr(_Keep, "run", lambda self: (kept.append(self._wanted), (True, "trace", []))[1])
    monkeypatch.setattr(netfilter, "remove", lambda name: True)
    clock = Clock()
    config = Config(firewall=FirewallMode.MANAGE, hosts_allow=("hosta", r"10\.0\.0\.1"))
    context = Context(clock, config, *[None] * 4, *[tmp_path] * 5)  # type: ignore[arg-type]  # no driver is needed
    known: list[tuple[str, ...] | None] = [("10.0.0.2",), None, ("10.0.0.9",)]

    class Names:
        async def addresses(self, name: str) -> tuple[str, ...] | None:
            return known.pop(0)

    async def work() -> None:
        from twisted.internet import reactor

        firewall = Firewall(context, Names())  # type: ignore[arg-type]  # what a name server says at each time
        await firewall.start()
        while len(kept) < 3:
            clock.advance(INTERVAL_S)
            await firewall._lock.run(lambda: None)
            await deferLater(reactor, 0)  # the loop takes its next turn
        assert (tmp_path / "firewall").exists()
        await firewall.stop()

    run_coroutine(work())
    networks = [[str(network) for network in wanted.networks] for wanted in kept]
    assert networks == [["10.0.0.1/32", "10.0.0.2/32"]] * 2 + [["10.0.0.1/32", "10.0.0.9/32"]]
    assert not (tmp_path / "firewall").exists()


def test_a_rule_without_effect_is_an_error_that_names_the_other_one(net: Testbed, tmp_path: Path) -> None:
    b = net.hostb
    early = "add table ip e; add chain ip e p { type filter hook prerouting priority -300; }"
    b.run(["nft", f"{early}; add rule ip e p tcp dport 8000-8100 drop"])
    with relocd(b, tmp_path, hosts_allow=ALLOW, firewall="manage") as target:
        log = target.log_file.read_text()
        assert "have no effect: 'tcp dport 8000-8100 drop' in nft table ip e, chain p" in log
        assert "#error" in log
        told = target.relocctl("firewall", check=False)
        assert told.exit_code == 7
        assert "relocd's rules cannot override it" in told.result["next"]
