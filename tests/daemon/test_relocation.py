"""Whole relocations between two daemons, with a fault at every step: where the domain ends up, what is said."""

from __future__ import annotations

import socket
import threading
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from relocd.cli.client import DaemonError
from relocd.daemon.connect import Peer
from relocd.daemon.opening import Promise, open_lanes
from relocd.drivers.memory import Step
from tests.daemon.rig import DOMAIN, Daemon, arrived, at_home, marks, settled
from tests.link import Wire, loopback


@pytest.mark.parametrize("live", [True, False], ids=["live", "offline"])
def test_the_domain_moves(source: Daemon, target: Daemon, live: bool) -> None:
    outcome = source.migrate(target.port, live=live)
    assert outcome["outcome"] == "completed", str(outcome)
    assert outcome["live"] is live
    assert set(outcome["level_bytes"]) == {"0", "-5", "1", "3"}
    assert (
        0 < sum(outcome["level_bytes"].values()) - outcome["saved_compression_bytes"] < outcome["bytes_sent"]
    )
    arrived(source, target)


@pytest.mark.parametrize("live", [True, False], ids=["live", "offline"])
def test_a_stream_longer_than_the_domain_can_take_is_stopped(
    source: Daemon, target: Daemon, live: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, bool]] = []

    def tight(memory_bytes: int, *, live: bool) -> int:
        asked.append((memory_bytes, live))
        return 4096

    monkeypatch.setattr("relocd.daemon.target.stream_bytes_max", tight)
    outcome = source.migrate(target.port, live=live)
    assert (outcome["outcome"], outcome["code"]) == ("failed", "stream")
    assert "longer than 4096 bytes" in outcome["error"]
    assert asked == [(1 << 20, live)]
    at_home(source, target)


def test_there_and_back_again(source: Daemon, target: Daemon) -> None:
    for _ in range(3):
        assert source.migrate(target.port)["outcome"] == "completed"
        assert target.migrate(source.port)["outcome"] == "completed"
    assert source.runs


@pytest.mark.parametrize("step", [Step.START, Step.STREAM, Step.SWITCH_OVER, Step.FINISH])
def test_the_sources_hypervisor_fails(source: Daemon, target: Daemon, step: Step) -> None:
    source.host.fail(step)
    outcome = source.migrate(target.port)
    assert outcome["outcome"] == "failed"
    assert outcome["error"]
    at_home(source, target)
    assert source.migrate(target.port)["outcome"] == "completed", "the next attempt must not suffer"


@pytest.mark.parametrize("step", [Step.PREPARE, Step.LOAD])
def test_the_targets_hypervisor_fails_before_the_decision(source: Daemon, target: Daemon, step: Step) -> None:
    target.host.fail(step)
    outcome = source.migrate(target.port)
    assert outcome["outcome"] == "failed"
    at_home(source, target)


def test_a_target_that_cannot_resume_at_once_tries_again(source: Daemon, target: Daemon) -> None:
    target.host.fail(Step.RESUME, times=2)
    assert source.migrate(target.port)["outcome"] == "completed"
    arrived(source, target)


def test_a_source_that_cannot_release_at_once_tries_again(source: Daemon, target: Daemon) -> None:
    source.host.fail(Step.RELEASE)
    assert source.migrate(target.port)["outcome"] == "completed"
    arrived(source, target)


def test_a_source_that_cannot_resume_at_once_tries_again(source: Daemon, target: Daemon) -> None:
    target.host.fail(Step.LOAD)
    source.host.fail(Step.CANCEL)
    assert source.migrate(target.port)["outcome"] == "failed"
    at_home(source, target)


def test_a_decision_that_cannot_be_written_is_none(source: Daemon, target: Daemon) -> None:
    source.break_journal()
    outcome = source.migrate(target.port)
    assert outcome["outcome"] == "failed"
    assert outcome["code"] == "journal"
    source.mend_journal()
    assert source.runs
    assert settled(lambda: not target.host.domains, source, target)


def test_a_target_that_cannot_write_its_promise_refuses(source: Daemon, target: Daemon) -> None:
    target.break_journal()
    outcome = source.migrate(target.port)
    assert outcome["outcome"] == "failed"
    target.mend_journal()
    at_home(source, target)


MESSAGES = ["(hello", "(propose", "(accept", "(lane", "(ready)", "(receiving)", "(switchover)", "(prepared"]


@pytest.mark.parametrize("before", [True, False], ids=["lost", "delivered"])
@pytest.mark.parametrize("message", MESSAGES)
def test_the_link_breaks_before_the_decision(
    source: Daemon, target: Daemon, message: str, before: bool
) -> None:
    wire = Wire(loopback(target.port), message, action="before" if before else "after")
    outcome = source.migrate(wire.port)
    assert wire.struck.is_set()
    if message == "(prepared" and not before and outcome["outcome"] != "failed":
        arrived(source, target)  # the source had what it needed, and decided before it noticed
    else:
        assert outcome["outcome"] == "failed"
        at_home(source, target)
    wire.close()


@pytest.mark.parametrize("before", [True, False], ids=["lost", "delivered"])
@pytest.mark.parametrize("message", ["(commit)", "(resumed)"])
def test_the_link_breaks_after_the_decision(
    source: Daemon, target: Daemon, message: str, before: bool
) -> None:
    wire = Wire(loopback(target.port), message, action="before" if before else "after")
    outcome = source.migrate(wire.port)
    assert outcome["outcome"] == "completed", str(outcome)
    assert wire.struck.is_set()
    arrived(source, target)
    wire.close()


def test_the_target_is_restarted_after_the_decision(source: Daemon, target: Daemon) -> None:
    """The commit is lost and the target stops; when it is back, both learn the outcome from each other."""
    wire = Wire(loopback(target.port), "(commit)")
    target.host.fail(Step.RESUME, times=3)
    outcome = source.migrate(wire.port)
    assert outcome["outcome"] == "completed", str(outcome)
    target.stop()
    target.start()
    arrived(source, target)
    wire.close()


def test_a_target_that_never_gets_ready_costs_a_short_pause(source: Daemon, target: Daemon) -> None:
    source.set_config(switchover_timeout_s=0.3)
    wire = Wire(loopback(target.port), "(prepared", action="swallow")
    outcome = source.migrate(wire.port)
    assert outcome["outcome"] == "failed"
    assert outcome["code"] == "timeout"
    at_home(source, target)
    wire.close()


def test_two_proposals_cannot_share_the_memory(source: Daemon, target: Daemon) -> None:
    relocations = target.service._relocations
    before = relocations.reserved_mib()
    assert source.migrate(target.port)["outcome"] == "completed"
    assert relocations.reserved_mib() > before, (
        "an arrived domain's memory stays promised until it is touched"
    )


def test_a_paused_domain_arrives_paused(source: Daemon, target: Daemon) -> None:
    source.client.call("pause", domain="web")
    assert source.migrate(target.port)["outcome"] == "completed"
    assert target.states() == {"web": "paused"}
    assert DOMAIN not in target.host.running()


def test_check_asks_and_moves_nothing(source: Daemon, target: Daemon) -> None:
    answer = source.client.call("check", domain="web", host="127.0.0.1", port=target.port)
    assert answer["passed"] is True
    assert not target.host.domains
    assert marks(target) == []
    target.set_config(max_incoming=0)
    answer = source.client.call("check", domain="web", host="127.0.0.1", port=target.port)
    assert answer["passed"] is False
    assert [c["check"] for c in answer["checks"] if c["verdict"] == "fail"] == ["room"]


def hold(target: Daemon) -> Wire:
    """A wire to the target on which ``receiving`` never comes: the relocation waits, undecided."""
    return Wire(loopback(target.port), "(receiving)", action="swallow")


def test_cancel_leaves_the_domain_at_home(source: Daemon, target: Daemon) -> None:
    wire = hold(target)
    answers: list[dict[str, object]] = []
    waiting = threading.Thread(target=lambda: answers.append(source.migrate(wire.port)))
    waiting.start()
    assert wire.struck.wait(30)
    (row,) = source.client.call("status")["relocations"]
    assert (row["role"], row["domain"], row["state"]) == ("source", "web", "opening")
    (other,) = target.client.call("status")["relocations"]
    assert (other["role"], other["state"]) == ("target", "receiving")
    outcome = source.client.call("cancel", relocation=row["relocation"])
    waiting.join()
    assert outcome["code"] == answers[0]["code"] == "cancelled"
    assert answers[0]["exit_code"] == 11
    at_home(source, target)
    assert source.client.call("status")["relocations"] == []
    wire.close()


def connecting(port: int) -> bool:
    """Has somebody sent a SYN to this port that is not answered (proc(5), /proc/net/tcp: state 02)?"""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return any(row[2].endswith(f":{port:04X}") and row[3] == "02" for row in rows)


def test_a_connection_that_opens_after_the_end_is_closed(source: Daemon) -> None:
    """The peer drops the first SYN, its queue being full; before the next one the relocation is cancelled."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server, socket.socket() as filler:
        server.settimeout(30)
        filler.connect(server.getsockname())
        answers: list[dict[str, object]] = []
        port = server.getsockname()[1]
        waiting = threading.Thread(target=lambda: answers.append(source.migrate(port)))
        waiting.start()
        assert settled(lambda: connecting(port), source)
        source.client.call("cancel", relocation="web")
        waiting.join()
        server.accept()[0].close()
        late, _ = server.accept()
        late.settimeout(30)
        assert late.recv(4096) == b"", "it must not introduce itself, let alone propose"
        late.close()
    assert source.runs


def test_cancel_of_nothing_is_a_clear_error(source: Daemon) -> None:
    with pytest.raises(DaemonError, match="No relocation 'web' is under way on this host"):
        source.client.call("cancel", relocation="web")


def test_history_shows_both_sides_newest_first(source: Daemon, target: Daemon) -> None:
    target.host.fail(Step.LOAD)
    assert source.migrate(target.port)["outcome"] == "failed"
    at_home(source, target)
    assert source.migrate(target.port)["outcome"] == "completed"
    arrived(source, target)
    rows = source.client.call("history")["relocations"]
    assert [(row["role"], row["outcome"]["outcome"]) for row in rows] == [
        ("source", "completed"),
        ("source", "failed"),
    ]
    assert rows[0]["outcome"]["downtime_ms"] > 0
    rows = target.client.call("history", relocation="web", limit=1)["relocations"]
    assert [(row["role"], row["mark"]) for row in rows] == [("target", "arrived")]


@pytest.mark.parametrize(
    ("source_says", "target_says", "lanes"),
    [(3, 2, 2), (2, 5, 2), (None, 3, 3), (3, None, 3), (None, None, 4)],
)
def test_the_smaller_number_of_lanes_counts(
    source: Daemon,
    target: Daemon,
    source_says: int | None,
    target_says: int | None,
    lanes: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opened: list[int] = []

    async def watched(reactor: Any, peer: Peer, relocation: UUID, promise: Promise, timeout_s: float) -> Any:
        opened.append(promise.accept.lanes)
        return await open_lanes(reactor, peer, relocation, promise, timeout_s)

    monkeypatch.setattr("relocd.daemon.source.open_lanes", watched)
    monkeypatch.setattr("relocd.daemon.connect.lanes_for", {"127.0.0.1": 4}.__getitem__)
    source.set_config(lanes=source_says)
    target.set_config(lanes=target_says)
    assert source.migrate(target.port)["outcome"] == "completed"
    assert opened == [lanes]
    arrived(source, target)
