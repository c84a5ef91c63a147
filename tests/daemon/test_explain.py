"""Why the gate lets a host in or not, asked of a running daemon."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from relocd.allow import AllowList
from relocd.cli.client import DaemonError
from relocd.daemon import lookup
from relocd.daemon.explain import explain
from relocd.daemon.gate import Gate
from relocd.daemon.lookup import Resolver, ReverseName, confirmed_names
from relocd.errors import UsageError
from tests.daemon.rig import Daemon
from tests.reactor import call, run

HOSTA = ReverseName("hosta.example.org", ("192.0.2.1", "2001:db8::1"), confirmed=True)
CLAIMED = ReverseName("hosta.example.org", ("192.0.2.9",), confirmed=False)


def gate(*patterns: str, timeout_s: float = 5.0) -> Gate:
    def make() -> Gate:
        from twisted.internet import reactor

        return Gate(AllowList(patterns), Resolver(reactor, timeout_s))

    return call(make)


def told(gate: Gate, host: str) -> Any:
    return run(explain(gate, host))


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[ReverseName, ...]]:
    """What name servers say of addresses; tests put it in."""
    known: dict[str, tuple[ReverseName, ...]] = {}
    monkeypatch.setattr(lookup, "reverse_names", lambda address: known.get(address, ()))
    return known


@pytest.mark.parametrize("address", ["10.0.0.1", "2001:db8::1", "::ffff:10.0.0.1", "fe80::1%eth0"])
def test_an_address_that_a_pattern_matches(address: str) -> None:
    (row,) = told(gate("nothing", r"10\.0\.0\.1", "2001:db8::1", "fe80::1%eth0"), address)["addresses"]
    assert row["admitted"]
    assert row["lookup"] == "not needed"
    assert len([p for p in row["patterns"] if p["matches"]]) == 1
    assert row["patterns"][0] == {"pattern": "nothing", "matches": ""}
    assert row["next"] == ""


def test_a_confirmed_name(names: dict[str, tuple[ReverseName, ...]]) -> None:
    names["192.0.2.1"] = (HOSTA,)
    reply = told(gate(r"10\..*", r"host[a-c]\.example\.org"), "192.0.2.1")
    assert reply["admitted"]
    (row,) = reply["addresses"]
    assert row["lookup"] == "done"
    assert row["names"] == [
        {
            "name": "hosta.example.org",
            "confirmed": True,
            "leads_to": ["192.0.2.1", "2001:db8::1"],
            "pattern": r"host[a-c]\.example\.org",
        }
    ]
    assert [p["matches"] for p in row["patterns"]] == ["", "hosta.example.org"]


def test_a_name_that_does_not_lead_back_is_told_as_such(names: dict[str, tuple[ReverseName, ...]]) -> None:
    names["192.0.2.1"] = (CLAIMED,)
    reply = told(gate("hosta.*"), "192.0.2.1")
    assert not reply["admitted"]
    (row,) = reply["addresses"]
    assert "would match hosta.*, but leads to 192.0.2.9 and not back to 192.0.2.1" in row["next"]
    assert r"^192\.0\.2\.1$" in row["next"]


def test_no_name_and_no_pattern(names: dict[str, tuple[ReverseName, ...]]) -> None:
    (row,) = told(gate("hosta"), "2001:db8::5")["addresses"]
    assert (row["admitted"], row["lookup"], row["names"]) == (False, "done", [])
    assert "add ^2001:db8::5$ to xen-relocation-hosts-allow" in row["next"]


def test_an_empty_list() -> None:
    (row,) = told(gate(), "10.0.0.1")["addresses"]
    assert "nobody is allowed" in row["reason"]


def test_lookups_that_hang_are_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()

    def hang(_: str) -> tuple[()]:
        over.wait(60)
        return ()

    monkeypatch.setattr(lookup, "reverse_names", hang)
    monkeypatch.setattr(lookup, "addresses_of", hang)
    try:
        asked = gate("hosta", timeout_s=0.05)
        (row,) = told(asked, "192.0.2.1")["addresses"]
        assert row["lookup"] == "timeout"
        assert "xen-relocation-lookup-timeout" in row["next"]
        with pytest.raises(UsageError, match="not found out in time"):
            told(asked, "hosta")
    finally:
        over.set()


def test_every_address_of_a_name_is_judged() -> None:
    reply = told(gate(r"127\.0\.0\.1"), "localhost")
    verdicts = {row["address"]: row["admitted"] for row in reply["addresses"]}
    assert verdicts.pop("127.0.0.1")
    assert not any(verdicts.values())
    assert reply["admitted"] == (not verdicts)


@pytest.mark.parametrize("host", ["", "x" * 300, "a\nb", "no-such-host.invalid"])
def test_what_is_no_host_is_an_error_with_a_next_step(host: str) -> None:
    with pytest.raises(UsageError) as caught:
        told(gate(".*"), host)
    assert caught.value.hint


def test_the_explanation_and_the_door_agree(source: Daemon) -> None:
    assert source.client.call("peers-test", host="127.0.0.1")["admitted"]
    assert not source.client.call("peers-test", host="127.0.0.2")["admitted"]
    with pytest.raises(DaemonError, match="needs 'host'"):
        source.client.call("peers-test", host=7)


def test_a_daemon_that_lets_in_nobody_else_says_so(source: Daemon) -> None:
    told = source.client.call("firewall")
    assert told["verdict"] in ("open", "undecided")
    assert [peer["networks"] for peer in told["peers"]] == [[]]
    assert "names no other host" in told["because"]


def test_a_host_that_does_not_listen_says_so(directory: Path) -> None:
    daemon = Daemon(directory / "closed", relocation_server=False)
    try:
        told = daemon.client.call("firewall")
        assert (told["verdict"], told["port"]) == ("closed", 0)
        assert "xen-relocation-server" in told["because"]
        assert daemon.client.call("firewall", remove=True)["removed"] is False
    finally:
        daemon.stop()


def test_the_number_of_names_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    many = [f"host{n}.example" for n in range(100)]
    monkeypatch.setattr(lookup.socket, "gethostbyaddr", lambda _: (many[0], many[1:], []))
    asked: list[str] = []
    monkeypatch.setattr(lookup, "addresses_of", lambda name: asked.append(name) or ("192.0.2.1",))
    assert confirmed_names("192.0.2.1") == tuple(many[: lookup.MAX_NAMES])
    assert len(asked) == lookup.MAX_NAMES


def test_the_gate_explains_what_it_does_to_a_peer(
    names: dict[str, tuple[ReverseName, ...]], tmp_path: Path
) -> None:
    names["192.0.2.1"] = (HOSTA, CLAIMED)
    asked = gate("hosta.*")
    admission = run(asked.judge_names("192.0.2.1"))
    assert run(asked.explain("192.0.2.1")).admission == admission
    assert admission.allowed
