"""The dialogue about bridges, between two daemons and with peers that say odd things.

Whether frames pass is for tests in network namespaces: here no bridge exists, and packet sockets fail.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest
from attrs import evolve

from relocd.config.model import L2Mode
from relocd.host import facts
from relocd.segment.proof import BridgeEnd, EndState
from relocd.wire.messages import Hello, Message, Problem, Resumed, decode, encode
from relocd.wire.network import End, MakeTunnel, Probe, Probing, TunnelMade, TunnelUse, TunnelUsed
from tests.daemon.rig import DOMAIN_FILE, Daemon
from tests.reactor import call

BRIDGE = "relocdtest0"
WIRED = DOMAIN_FILE.replace("web", "wired").replace("1111", "7777")
WIRED += f'vif = ["mac=00:16:3e:00:00:01,bridge={BRIDGE},ip=192.0.2.7"]\n'
NONCE = "00" * 16
PORT = 4789


@pytest.fixture
def wired(source: Daemon, monkeypatch: pytest.MonkeyPatch) -> Daemon:
    """The source, with a domain on a bridge that both hosts seem to have."""
    monkeypatch.setattr(facts, "bridges", lambda: frozenset({BRIDGE}))
    source.client.call("create", config=WIRED, source="wired.cfg")
    return source


@pytest.fixture
def peer(target: Daemon) -> Iterator[Peer]:
    peer = Peer(target)
    yield peer
    peer.close()


class Peer:
    """Somebody who speaks the dialogue by hand."""

    def __init__(self, daemon: Daemon) -> None:
        self._sock = socket.create_connection(("127.0.0.1", daemon.port), timeout=20)
        self._lines = self._sock.makefile("rb")

    def ask(self, message: Message) -> Message:
        self._sock.sendall(encode(message))
        return decode(self._lines.readline().rstrip())

    def greet(self) -> None:
        assert isinstance(self.ask(Hello("test", "tester", 0)), Hello)

    def close(self) -> None:
        self._lines.close()
        self._sock.close()


def segment(source: Daemon, target: Daemon) -> dict[str, Any]:
    reply = source.client.call("check", domain="wired", host="127.0.0.1", port=target.port)
    (check,) = [check for check in reply["checks"] if check["check"] == "segment"]
    return dict(check)


def test_a_segment_that_cannot_be_tried_is_a_warning_and_the_domain_moves(
    wired: Daemon, target: Daemon
) -> None:
    check = segment(wired, target)
    assert check["verdict"] == "warn"
    assert "packet sockets fail" in check["text"]
    outcome = wired.migrate(target.port, domain="wired")
    assert outcome["outcome"] == "completed"
    assert outcome["blackout_ms"] is None
    assert outcome["downtime_ms"] > 0


def test_a_peer_of_an_older_version_is_not_asked_and_the_domain_moves(
    wired: Daemon, target: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    older = evolve(call(target.service._context.hello), features=("boot-files", "lanes"))
    monkeypatch.setattr(target.service._relocations, "hello", lambda: older)
    check = segment(wired, target)
    assert check["verdict"] == "warn"
    assert "older relocd" in check["text"]
    assert wired.migrate(target.port, domain="wired")["outcome"] == "completed"


def test_an_older_source_is_heard_and_told_no_more_than_it_knows(
    wired: Daemon, target: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relocd.daemon.probing.FEATURE", "never")
    monkeypatch.setattr("relocd.daemon.relocations.FEATURE", "never")
    assert "older relocd" in segment(wired, target)["text"]
    assert wired.migrate(target.port, domain="wired")["outcome"] == "completed"


def test_a_probe_is_answered_as_often_as_it_is_asked_for(peer: Peer) -> None:
    peer.greet()
    probe = Probe(NONCE, L2Mode.WARN, (BridgeEnd(BRIDGE, EndState.READY),))
    answers = [peer.ask(probe) for _ in range(3)]
    for answer in answers:
        assert isinstance(answer, Probing)
        assert answer.bridges == (BridgeEnd(BRIDGE, EndState.ABSENT, text=f"there is no bridge {BRIDGE}"),)
        assert answer.mode is L2Mode.REQUIRE
    assert len({answer.nonce for answer in answers if isinstance(answer, Probing)}) == 3


def test_nobody_is_answered_who_has_not_said_hello(peer: Peer) -> None:
    answer = peer.ask(Probe(NONCE, L2Mode.WARN, ()))
    assert isinstance(answer, Problem)
    assert "say hello first" in answer.text


def test_a_tunnel_is_made_only_where_that_is_configured(target: Daemon, peer: Peer) -> None:
    peer.greet()
    assert peer.ask(MakeTunnel(BRIDGE, 1, PORT)) == TunnelMade(End.UNABLE, "xen-relocation-l2 is not tunnel")
    target.set_config(l2=L2Mode.TUNNEL)
    other_port = TunnelMade(End.UNABLE, f"xen-relocation-tunnel-port is {PORT}")
    assert peer.ask(MakeTunnel(BRIDGE, 1, PORT + 1)) == other_port
    answer = peer.ask(MakeTunnel(BRIDGE, 1, PORT))
    assert isinstance(answer, TunnelMade)
    assert (answer.end, "no bridge" in answer.text) == (End.UNABLE, True)


def test_a_tunnel_that_could_not_be_made_leaves_no_record(target: Daemon, peer: Peer) -> None:
    target.set_config(l2=L2Mode.TUNNEL)
    peer.greet()
    peer.ask(MakeTunnel(BRIDGE, 1, PORT))
    assert list((target.places.state_dir / "tunnels").glob("*")) == []


def test_a_tunnel_that_nobody_knows_is_not_needed(peer: Peer) -> None:
    peer.greet()
    assert peer.ask(TunnelUse(7)) == TunnelUsed(needed=False)


def test_a_domain_without_interfaces_is_resumed_without_a_word_about_frames() -> None:
    assert encode(Resumed()) == b"(resumed)\n"
