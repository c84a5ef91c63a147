"""Cancel at every step before the commit, from either side; after it, a clear no. And the history of it."""

from __future__ import annotations

import pytest

from relocd.cli.client import DaemonError
from relocd.handover.record import Mark
from tests.daemon.rig import Daemon, Held, arrived, at_home, marks, settled

BEFORE = ["(hello", "(propose", "(accept", "(lane", "(ready)", "(receiving)", "(switchover)", "(prepared"]


@pytest.mark.parametrize("message", BEFORE)
def test_cancel_before_the_commit_leaves_the_domain_at_home(
    source: Daemon, target: Daemon, message: str
) -> None:
    held = Held(source, target, message)
    answer = source.client.call("cancel", relocation="web")
    assert answer["code"] == "cancelled"
    assert source.runs, "at once, not when the peer agrees"
    outcome = held.go_on()
    assert (outcome["outcome"], outcome["exit_code"]) == ("failed", 11)
    at_home(source, target)
    (record,) = source.client.call("history", relocation=answer["relocation"])["relocations"]
    assert [m["does"] for m in record["timeline"] if m["kind"] == "operator"] == ["cancel"]
    assert source.migrate(target.port)["outcome"] == "completed", "the next attempt must not suffer"


@pytest.mark.parametrize("message", ["(commit)", "(resumed)"])
def test_cancel_after_the_commit_is_a_clear_no(source: Daemon, target: Daemon, message: str) -> None:
    held = Held(source, target, message)
    with pytest.raises(DaemonError, match="cannot be cancelled any more"):
        source.client.call("cancel", relocation="web")
    assert held.go_on()["outcome"] == "completed"
    arrived(source, target)


@pytest.mark.parametrize("message", ["(receiving)", "(switchover)"])
def test_a_target_can_cancel_what_it_has_not_called_prepared(
    source: Daemon, target: Daemon, message: str
) -> None:
    held = Held(source, target, message)
    assert target.client.call("cancel", relocation="web")["mark"] == "aborted"
    outcome = held.go_on()
    assert outcome["outcome"] == "failed"
    assert "cancelled by an operator" in outcome["error"]
    at_home(source, target)


def test_a_prepared_target_does_not_cancel(source: Daemon, target: Daemon) -> None:
    held = Held(source, target, "(prepared")
    with pytest.raises(DaemonError, match="cannot be cancelled any more"):
        target.client.call("cancel", relocation="web")
    assert held.go_on()["outcome"] == "completed"
    arrived(source, target)


@pytest.mark.parametrize("verb", ["destroy", "shutdown", "pause", "unpause", "reboot", "migrate"])
def test_other_verbs_are_refused_meanwhile_on_both_hosts(source: Daemon, target: Daemon, verb: str) -> None:
    held = Held(source, target, "(switchover)")
    for daemon in (source, target):
        with pytest.raises(DaemonError, match=r"being relocated|is incoming") as caught:
            daemon.client.call(verb, domain="web", host="127.0.0.1", live=True)
        assert caught.value.hint
    assert held.go_on()["outcome"] == "completed"
    arrived(source, target)


def test_the_history_tells_phases_checks_states_and_reasons(source: Daemon, target: Daemon) -> None:
    outcome = source.migrate(target.port)
    arrived(source, target)
    for daemon, last in ((source, "done"), (target, "done")):
        (record,) = daemon.client.call("history", relocation=outcome["relocation"])["relocations"]
        timeline = record["timeline"]
        assert [m["at_s"] for m in timeline] == sorted(m["at_s"] for m in timeline)
        assert timeline[-1]["state"] == last
        (checks,) = [m["checks"] for m in timeline if m["kind"] == "checks"]
        assert {"memory", "architecture", "room"} <= {check["check"] for check in checks}
    (record,) = source.client.call("history", relocation=outcome["relocation"])["relocations"]
    phases = [m["phase"] for m in record["timeline"] if m["kind"] == "phase"]
    assert phases == ["connect", "preflight", "memory", "switchover", "commit", "resume"]


def test_attempts_that_never_got_anywhere_are_in_the_history_too(source: Daemon, target: Daemon) -> None:
    target.set_config(max_incoming=0)
    assert source.migrate(target.port)["outcome"] == "refused"
    target.stop()
    assert source.migrate(target.port)["outcome"] == "failed"
    target.start()
    assert settled(lambda: marks(source) == [Mark.ABORTED] * 2, source)
    rows = source.client.call("history", relocation="web")["relocations"]
    assert [row["outcome"]["outcome"] for row in rows] == ["failed", "refused"]
    assert rows[1]["outcome"]["reasons"][0]["code"] == "room"


def test_the_history_of_what_is_not_known_is_an_error(source: Daemon) -> None:
    with pytest.raises(DaemonError, match="knows no relocation or domain 'nothing'"):
        source.client.call("history", relocation="nothing")
