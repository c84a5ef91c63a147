"""relocctl resolve: nobody decides without having been told; and what status and history tell."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import pexpect
import pytest

from relocd.cli.records import history_text, status_text
from tests.cli.conftest import BIN, Run
from tests.cli.control_server import ControlServer

ADVICE = {
    "event": "result",
    "decided": False,
    "known": [
        "Here: committed: the domain belongs to hostb.",
        "There: hostb does not answer (12 s ago): refused.",
    ],
    "risk": "If hostb runs the domain, it will be running twice.",
}
DECIDED = {"event": "result", "decided": True, "relocation": "r1", "domain": "web"}


@pytest.fixture(autouse=True)
def _resolver(server: ControlServer) -> None:
    def resolve(request: dict[str, Any]) -> Iterable[dict[str, Any]]:
        return [DECIDED if request["sure"] else ADVICE]

    server.answers["resolve"] = resolve


def asked_surely(server: ControlServer) -> list[bool]:
    return [request["sure"] for request in server.requests]


def test_without_a_terminal_and_yes_nothing_is_decided(run: Run, server: ControlServer) -> None:
    done = run("relocctl", "resolve", "web", "--resume-here")
    assert done.returncode == 2
    assert "RISK: If hostb runs the domain" in done.stderr
    assert "--yes" in done.stderr
    assert asked_surely(server) == [False]


def test_json_without_yes_decides_nothing_either(run: Run, server: ControlServer) -> None:
    done = run("relocctl", "resolve", "web", "--discard", "--json")
    assert done.returncode == 2
    assert json.loads(done.stdout)["code"] == "usage"
    assert asked_surely(server) == [False]


def test_yes_decides(run: Run, server: ControlServer) -> None:
    done = run("relocctl", "resolve", "web", "--resume-here", "--yes")
    assert (done.returncode, done.stdout) == (0, "Decided: the copy of domain 'web' is resumed here.\n")
    assert server.requests[-1] == {
        "verb": "resolve",
        "relocation": "web",
        "resume_here": True,
        "discard": False,
        "sure": True,
    }


@pytest.mark.parametrize("options", [(), ("--resume-here", "--discard")])
def test_one_of_both_must_be_chosen(run: Run, server: ControlServer, options: tuple[str, ...]) -> None:
    done = run("relocctl", "resolve", "web", *options)
    assert done.returncode == 2
    assert "--resume-here or --discard" in done.stderr
    assert server.requests == []


@pytest.mark.parametrize(("answer", "status"), [("y", 0), ("n", 2)])
def test_on_a_terminal_it_asks(server: ControlServer, answer: str, status: int) -> None:
    child = pexpect.spawn(
        str(BIN / "relocctl"), ["resolve", "web", "--discard"], encoding="utf-8", timeout=30
    )
    child.expect("RISK: If hostb runs the domain")
    child.expect("Decide so")
    child.sendline(answer)
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == status
    assert asked_surely(server) == ([False, True] if status == 0 else [False])


def test_status_explains_what_waits_and_names_the_way_out() -> None:
    waiting = {
        "relocation": "r1",
        "role": "source",
        "domain": "web",
        "peer": "hostb",
        "state": "committed",
        "connected": False,
        "waiting": True,
        "here": "committed: the paused copy here is kept",
        "there": "hostb does not answer (3 s ago): refused\x1b[31m",
    }
    text = status_text([waiting])
    assert "  here:  committed" in text
    assert "relocctl resolve r1 --resume-here | --discard" in text
    assert "\x1b" not in text
    orphan = waiting | {"relocation": None, "peer": None, "state": "orphaned"}
    assert "relocctl resolve web --resume-here" in status_text([orphan])
    assert "resolve" not in status_text([waiting | {"connected": True}])
    judged = waiting | {"connected": True, "verdict": "continue", "verdict_text": "the rounds shrink"}
    assert "r1: continue: the rounds shrink" in status_text([judged])


TIMELINE = [
    {"at_s": 1000.0, "kind": "phase", "phase": "connect"},
    {
        "at_s": 1000.1,
        "kind": "checks",
        "checks": [
            {"check": "memory", "verdict": "pass", "text": "enough"},
            {"check": "cpu", "verdict": "warn", "text": "another model"},
        ],
    },
    {
        "at_s": 1001.5,
        "kind": "round",
        "round": 2,
        "remaining_bytes": 1 << 20,
        "dirty_rate_bytes_s": 10 << 20,
        "rate_bytes_s": 100 << 20,
    },
    {"at_s": 1001.55, "kind": "verdict", "verdict": "raise-downtime", "text": "the rounds do not shrink"},
    {"at_s": 1001.6, "kind": "sample", "sent_bytes": 5},
    {"at_s": 1002.0, "kind": "state", "state": "committed"},
    {"at_s": 1002.5, "kind": "peer", "says": None, "text": "refused"},
    {"at_s": 1003.0, "kind": "operator", "does": "resume-here"},
    {"at_s": 1003.5, "kind": "failure", "code": "resolved", "text": "an operator decided"},
    {"at_s": 1004.0, "kind": "something-new"},
]


def test_a_record_tells_what_was_saved_and_how_contents_were_sent() -> None:
    outcome = {
        "outcome": "completed",
        "bytes_sent": 5 << 20,
        "saved_zero_bytes": 2 << 30,
        "saved_compression_bytes": 0,
        "dense_bytes": 1 << 20,
        "level_bytes": {"0": 3 << 20, "-5": 0, "1": 4 << 20, "3": 0},
    }
    record = {"relocation": "r1", "began_s": 1000.0, "outcome": outcome}
    lines = history_text(record).splitlines()
    assert lines[1].endswith("; completed, 5.0 MiB sent, saved 2.0 GiB (2.0 GiB zero pages)")
    assert lines[2] == "Contents: 4.0 MiB with zstd 1, 3.0 MiB as it is (1.0 MiB because it did not shrink)"


def test_a_timeline_tells_phases_checks_rounds_rates_and_reasons() -> None:
    record = {
        "relocation": "r1",
        "role": "source",
        "domain": "web",
        "peer": "hostb",
        "live": True,
        "began_s": 1000.0,
        "mark": "aborted",
        "outcome": {"outcome": "failed", "duration_s": 3.5, "rounds": 2, "error": "an operator decided"},
        "timeline": TIMELINE,
    }
    lines = history_text(record).splitlines()
    assert lines[0] == "Relocation r1: domain 'web' to hostb, live"
    assert lines[1].endswith("; failed, 3.5 s in all, rounds: 2")
    assert lines[2] == "Because an operator decided"
    assert lines[4:] == [
        "    +0.000  connect",
        "    +0.100  checks: 1 pass, 1 warn, 0 fail",
        "            warn  cpu: another model",
        "    +1.500  round 2: 1.0 MiB left, 10.0 MiB/s dirtied, 100.0 MiB/s sent",
        "    +1.550  verdict: raise-downtime",
        "            the rounds do not shrink",
        "    +2.000  state: committed",
        "    +2.500  the peer does not answer: refused",
        "    +3.000  an operator decides: resume-here",
        "    +3.500  failure (resolved): an operator decided",
    ]
