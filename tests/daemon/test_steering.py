"""Relocations are steered: the pause is raised, guests are throttled, time and bandwidth are limited."""

from __future__ import annotations

import threading
from typing import Any
from uuid import UUID

import pytest

from relocd.cli.client import DaemonError
from relocd.drivers.memory.driver import MemoryOutgoing
from tests.daemon.rig import DOMAIN, DOMAIN_FILE, Daemon, arrived, at_home, settled
from tests.link import Wire, loopback
from tests.reactor import call

SECOND = UUID("22222222-2222-4333-8444-555555555555")
NEVER_MS = 10_000
MIB = 1 << 20


def make_restless(daemon: Daemon, needed_ms: int, uuid: UUID = DOMAIN) -> None:
    """The domain changes its memory so fast that its relocation ends only with a pause of this length."""
    call(setattr, daemon.host.domains[uuid].guest, "restless_ms", needed_ms)


def verdicts(daemon: Daemon, outcome: dict[str, Any]) -> list[dict[str, Any]]:
    """The verdicts in the timeline of a relocation that has ended."""
    (record,) = daemon.client.call("history", relocation=outcome["relocation"])["relocations"]
    return [moment for moment in record["timeline"] if moment["kind"] == "verdict"]


class Moving(threading.Thread):
    """A relocation under way."""

    def __init__(self, source: Daemon, port: int, **fields: Any) -> None:
        super().__init__(daemon=True)
        self._outcome: dict[str, Any] = {}
        self._begin = lambda: source.migrate(port, **fields)
        self.start()

    def run(self) -> None:
        self._outcome = self._begin()

    def end(self) -> dict[str, Any]:
        """Wait for its outcome."""
        self.join()
        return self._outcome


def limits(daemon: Daemon) -> dict[str, int]:
    """What each of those that are moving memory may put on the wire."""
    rows = daemon.client.call("status")["relocations"]
    return {row["domain"]: row["limit_bytes_s"] for row in rows if row["phase"] == "memory"}


def test_the_pause_is_raised_step_by_step_until_it_is_enough(source: Daemon, target: Daemon) -> None:
    make_restless(source, 100)
    seen: list[dict[str, Any]] = []
    outcome = source.migrate(target.port, on_progress=seen.append)
    assert outcome["outcome"] == "completed", str(outcome)
    arrived(source, target)
    told = verdicts(source, outcome)
    aims = [moment["downtime_limit_ms"] for moment in told]
    assert aims == sorted(set(aims))
    assert aims[0] == 40
    assert 100 <= aims[-1] <= 300
    assert all("the guest dirties" in moment["text"] for moment in told)
    last = [event for event in seen if event["verdict"]][-1]
    assert last["downtime_limit_ms"] == aims[-1]
    assert last["verdict_text"]


def test_a_domain_that_converges_gets_the_short_pause(source: Daemon, target: Daemon) -> None:
    outcome = source.migrate(target.port)
    assert outcome["outcome"] == "completed"
    assert verdicts(source, outcome) == []


def test_a_hypervisor_that_cannot_be_steered_is_not_judged(
    source: Daemon, target: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MemoryOutgoing, "steerable", False)
    make_restless(source, NEVER_MS)
    outcome = source.migrate(target.port, max_duration_s=3, max_downtime_ms=50)
    assert outcome["code"] == "cancelled"
    assert "not done within 3 s: it was at 'memory', the link moves" in outcome["error"]
    assert "--max-downtime" not in outcome["hint"]
    at_home(source, target)
    assert verdicts(source, outcome) == []


def test_one_that_does_not_converge_is_given_up_with_the_numbers(source: Daemon, target: Daemon) -> None:
    make_restless(source, NEVER_MS)
    outcome = source.migrate(target.port, max_duration_s=5, max_downtime_ms=50)
    assert outcome["outcome"] == "failed"
    assert (outcome["code"], outcome["exit_code"]) == ("cancelled", 11)
    assert "not done within 5 s: the guest dirties" in outcome["error"]
    assert outcome["hint"].startswith("The domain runs on here.")
    at_home(source, target)
    told = verdicts(source, outcome)
    assert max(moment["downtime_limit_ms"] for moment in told) == 50
    assert told[-1]["verdict"] == "give-up"


def test_rounds_are_limited_by_the_configuration(source: Daemon, target: Daemon) -> None:
    source.set_config(max_rounds=10, downtime_ms=1, max_downtime_ms=1)
    make_restless(source, NEVER_MS)
    outcome = source.migrate(target.port)
    assert outcome["code"] == "cancelled"
    assert "did not converge within 10 rounds" in outcome["error"]
    at_home(source, target)


@pytest.mark.parametrize("live", [True, False])
@pytest.mark.parametrize(("message", "phase"), [("(propose", "preflight"), ("(prepared", "switchover")])
def test_the_time_counts_before_and_after_memory_moves_as_well(
    source: Daemon, target: Daemon, message: str, phase: str, live: bool
) -> None:
    wire = Wire(loopback(target.port), message, action="hold")
    outcome = source.migrate(wire.port, live=live, max_duration_s=3)
    wire.close()
    assert outcome["code"] == "cancelled"
    assert f"it was not done within 3 s: it was at '{phase}'" in outcome["error"]
    assert "dirties" not in outcome["error"]
    at_home(source, target)


def test_time_does_not_end_what_is_decided(source: Daemon, target: Daemon) -> None:
    wire = Wire(loopback(target.port), "(commit)", action="hold")
    moving = Moving(source, wire.port, max_duration_s=60)
    assert wire.struck.wait(30)
    (relocation,) = source.service._relocations._sources.values()
    timer = relocation._steering._timer
    assert timer is not None
    assert not call(timer.active)
    wire.release()
    assert moving.end()["outcome"] == "completed"
    arrived(source, target)
    wire.close()


@pytest.mark.parametrize("allowed", [True, False])
def test_a_guest_is_throttled_only_where_that_is_allowed(
    source: Daemon, target: Daemon, allowed: bool
) -> None:
    source.set_config(max_downtime_ms=20, throttle=allowed)
    make_restless(source, 24)
    outcome = source.migrate(target.port, max_duration_s=60 if allowed else 5)
    assert outcome["outcome"] == ("completed" if allowed else "failed")
    assert {moment["throttle_percent"] for moment in verdicts(source, outcome)} == {20 if allowed else 0}


@pytest.mark.parametrize(
    "wish",
    [
        {"max_bandwidth_bytes_s": 6 * MIB},
        {"max_bandwidth_bytes_s": "fast"},
        {"max_bandwidth_bytes_s": 1.5},
        {"max_bandwidth_bytes_s": True},
        {"max_downtime_ms": 301},
        {"max_downtime_ms": 10**400},
        {"max_duration_s": 11},
        {"max_duration_s": float("nan")},
    ],
)
def test_what_is_not_allowed_is_refused_and_nothing_begins(
    source: Daemon, target: Daemon, wish: dict[str, Any]
) -> None:
    source.set_config(max_bandwidth_bytes_s=5 * MIB, max_duration_s=10.0)
    outcome = source.migrate(target.port, **wish)
    assert (outcome["code"], outcome["exit_code"]) == ("usage", 2)
    assert source.client.call("history")["relocations"] == []
    assert source.runs


def test_those_that_leave_at_once_share_the_hosts_bandwidth(source: Daemon, target: Daemon) -> None:
    """Anew when one begins, when one ends, and when the cap changes."""
    source.set_config(host_bandwidth_bytes_s=10 * MIB, outgoing_at_once=2)
    second = DOMAIN_FILE.replace(str(DOMAIN), str(SECOND)).replace('"web"', '"db"')
    source.client.call("create", config=second, source="db.cfg")
    make_restless(source, NEVER_MS)
    make_restless(source, NEVER_MS, SECOND)
    web = Moving(source, target.port)
    assert settled(lambda: limits(source) == {"web": 10 * MIB}, source)
    db = Moving(source, target.port, domain="db")
    assert settled(lambda: limits(source) == {"web": 5 * MIB, "db": 5 * MIB}, source)
    source.set_config(host_bandwidth_bytes_s=0)
    call(source.service._relocations.share)
    assert limits(source) == {"web": 0, "db": 0}
    source.set_config(host_bandwidth_bytes_s=10 * MIB)
    source.client.call("cancel", relocation="web")
    assert settled(lambda: limits(source) == {"db": 10 * MIB}, source)
    source.client.call("cancel", relocation="db")
    for moving in (web, db):
        assert moving.end()["code"] == "cancelled"


def test_no_more_leave_at_once_than_the_configuration_allows(source: Daemon, target: Daemon) -> None:
    source.set_config(max_outgoing=1)
    second = DOMAIN_FILE.replace(str(DOMAIN), str(SECOND)).replace('"web"', '"db"')
    source.client.call("create", config=second, source="db.cfg")
    make_restless(source, NEVER_MS)
    web = Moving(source, target.port)
    assert settled(lambda: "web" in limits(source), source)
    with pytest.raises(DaemonError, match="1 relocations leave this host already") as caught:
        source.client.call("migrate", domain="db", host="127.0.0.1", port=target.port, live=True)
    assert "xen-relocation-max-outgoing" in caught.value.hint
    source.client.call("cancel", relocation="web")
    assert web.end()["code"] == "cancelled"
    assert source.migrate(target.port, domain="db")["outcome"] == "completed"
