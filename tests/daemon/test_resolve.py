"""The day a host is gone: what the other one knows and says, and what an operator can decide; and orphaned copies."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from relocd.cli.client import DaemonError
from relocd.drivers.memory import Step
from relocd.handover.record import Mark
from tests.daemon.rig import DOMAIN, Daemon, arrived, at_home, marks, settled
from tests.link import Wire, loopback


class Torn:
    """A relocation whose commit never arrives: the source has committed, the target is prepared, nobody is heard."""

    def __init__(self, source: Daemon, target: Daemon) -> None:
        self.source, self.target = source, target
        self.wire = Wire(loopback(target.port), "(commit)", action="hold")
        self.answers: list[dict[str, Any]] = []
        self._waiting = threading.Thread(target=lambda: self.answers.append(source.migrate(self.wire.port)))
        self._waiting.start()
        assert self.wire.struck.wait(30)

    def tear(self, *dead: Daemon) -> None:
        """These are gone; then the connection breaks, and the commit is lost with it."""
        for daemon in dead:
            daemon.stop()
        self.wire.cut()

    def close(self) -> None:
        self.wire.close()
        self._waiting.join(60)


@pytest.fixture
def torn(source: Daemon, target: Daemon) -> Iterator[Torn]:
    torn = Torn(source, target)
    yield torn
    torn.close()


def row(daemon: Daemon) -> dict[str, Any]:
    (found,) = daemon.client.call("status")["relocations"]
    return dict(found)


def resolve(daemon: Daemon, *, resume_here: bool, sure: bool = True) -> dict[str, Any]:
    return daemon.client.call(
        "resolve", relocation="web", resume_here=resume_here, discard=not resume_here, sure=sure
    )


def heard_nothing(daemon: Daemon) -> bool:
    """Has it asked and got no answer?"""
    return "does not answer" in row(daemon)["there"]


def test_status_tells_what_either_side_knows(torn: Torn) -> None:
    torn.tear(torn.target)
    assert settled(lambda: heard_nothing(torn.source), torn.source)
    found = row(torn.source)
    assert (found["mark"], found["state"], found["waiting"]) == ("committed", "committed", True)
    assert "the paused copy here is kept" in found["here"]
    assert "Connection refused" in found["there"]
    torn.target.start()
    arrived(torn.source, torn.target)


def test_a_timeline_goes_on_where_a_former_daemon_ended(torn: Torn) -> None:
    torn.tear(torn.source)
    torn.source.start()
    arrived(torn.source, torn.target)
    (listed,) = torn.source.client.call("history")["relocations"]
    (record,) = torn.source.client.call("history", relocation=listed["relocation"])["relocations"]
    told = [moment.get("phase") or moment.get("state") for moment in record["timeline"]]
    assert [word for word in told if word in ("connect", "deciding", "done")] == [
        "connect",
        "deciding",
        "done",
    ]
    assert [moment["at_s"] for moment in record["timeline"]] == sorted(
        moment["at_s"] for moment in record["timeline"]
    )


def test_a_source_whose_target_is_gone_resumes_by_an_operators_word(torn: Torn) -> None:
    torn.tear(torn.target)
    advice = resolve(torn.source, resume_here=True, sure=False)
    assert advice["decided"] is False
    assert "twice" in advice["risk"]
    assert any("does not answer" in fact for fact in advice["known"])
    assert not torn.source.runs, "advice decides nothing"
    decided = resolve(torn.source, resume_here=True)
    assert decided["decided"] is True
    assert torn.source.runs
    assert marks(torn.source) == [Mark.ABORTED]
    torn.target.start()
    at_home(torn.source, torn.target)


def test_a_source_whose_target_is_gone_gives_its_copy_up(torn: Torn) -> None:
    torn.tear(torn.target)
    resolve(torn.source, resume_here=False)
    assert DOMAIN not in torn.source.host.domains
    assert marks(torn.source) == [Mark.DONE]
    (record,) = torn.source.client.call("history")["relocations"]
    assert record["outcome"]["outcome"] == "resolved"
    assert "operator" in record["outcome"]["error"]
    torn.target.start()
    arrived(torn.source, torn.target)


def test_a_target_whose_source_is_gone_resumes_by_an_operators_word(torn: Torn) -> None:
    torn.tear(torn.source)
    assert settled(lambda: heard_nothing(torn.target), torn.target)
    resolve(torn.target, resume_here=True)
    assert torn.target.runs
    torn.source.start()
    arrived(torn.source, torn.target)


def test_a_target_whose_source_is_gone_gives_its_copy_up(torn: Torn) -> None:
    torn.tear(torn.source)
    assert settled(lambda: heard_nothing(torn.target), torn.target)
    resolve(torn.target, resume_here=False)
    assert DOMAIN not in torn.target.host.domains
    assert marks(torn.target) == [Mark.ABORTED]
    torn.source.start()
    at_home(torn.source, torn.target)


@pytest.mark.parametrize("side", ["source", "target"])
def test_a_peer_that_answers_decides_and_nobody_else(torn: Torn, side: str) -> None:
    daemon = torn.source if side == "source" else torn.target
    with pytest.raises(DaemonError, match=r"settle|answers"):
        resolve(daemon, resume_here=True)
    torn.tear()
    arrived(torn.source, torn.target)


def test_nothing_is_resolved_before_the_decision(source: Daemon, target: Daemon) -> None:
    wire = Wire(loopback(target.port), "(receiving)", action="swallow")
    waiting = threading.Thread(target=source.migrate, args=[wire.port])
    waiting.start()
    assert wire.struck.wait(30)
    for daemon in (source, target):
        with pytest.raises(DaemonError, match="not decided yet") as caught:
            resolve(daemon, resume_here=True)
        assert "relocctl cancel" in caught.value.hint
    source.client.call("cancel", relocation="web")
    waiting.join()
    wire.close()


def test_a_journal_that_was_moved_away_at_the_target_leaves_the_word_to_an_operator(torn: Torn) -> None:
    """The peer answers, but knows nothing of it: that is no reason to refuse."""
    torn.tear(torn.target)
    (torn.target.places.state_dir / "journal.sqlite").rename(torn.target.places.state_dir / "damaged")
    torn.target.start()
    orphan = row(torn.target)
    assert (orphan["state"], orphan["relocation"]) == ("orphaned", None)
    advice = resolve(torn.target, resume_here=False, sure=False)
    assert advice["decided"] is False
    resolve(torn.target, resume_here=False)
    assert not torn.target.host.domains
    assert settled(lambda: "no record" in row(torn.source)["there"], torn.source)
    resolve(torn.source, resume_here=True)
    assert torn.source.runs


def test_an_orphaned_copy_can_be_resumed_at_the_target(torn: Torn) -> None:
    torn.tear(torn.target)
    (torn.target.places.state_dir / "journal.sqlite").rename(torn.target.places.state_dir / "damaged")
    torn.target.start()
    resolve(torn.target, resume_here=True)
    assert torn.target.runs
    resolve(torn.source, resume_here=False)
    assert not torn.source.host.domains


@pytest.mark.parametrize("resume_here", [True, False])
def test_an_orphaned_copy_at_the_source(torn: Torn, resume_here: bool) -> None:
    torn.tear(torn.source)
    (torn.source.places.state_dir / "journal.sqlite").rename(torn.source.places.state_dir / "damaged")
    torn.source.start()
    assert row(torn.source)["role"] == "source"
    resolve(torn.source, resume_here=resume_here)
    assert torn.source.runs is resume_here
    assert bool(torn.source.host.domains) is resume_here


def test_a_domain_that_runs_though_the_journal_is_gone_is_this_hosts_own(
    source: Daemon, target: Daemon
) -> None:
    wire = Wire(loopback(target.port), "(switchover)", action="before")
    assert source.migrate(wire.port)["outcome"] == "failed"
    source.stop()
    (source.places.state_dir / "journal.sqlite").unlink()
    source.start()
    assert source.client.call("status")["relocations"] == []
    source.client.call("pause", domain="web")
    wire.close()


def test_a_target_that_does_not_resume_is_seen_and_can_be_given_up(source: Daemon, target: Daemon) -> None:
    target.host.fail(Step.RESUME, times=1000)
    wire = Wire(loopback(target.port), "(nothing")
    waiting = threading.Thread(target=source.migrate, args=[wire.port])
    waiting.start()
    assert settled(lambda: bool(target.client.call("status")["relocations"]), target)
    assert settled(lambda: "told to fail" in str(row(target).get("trouble")), source, target)
    with pytest.raises(DaemonError, match="is decided"):
        resolve(target, resume_here=True)
    resolve(target, resume_here=False)
    assert marks(target) == [Mark.LOST]
    assert settled(lambda: "may have run" in row(source)["there"], source)
    assert settled(lambda: not row(source)["connected"], source)
    assert (row(source)["state"], source.states()) == ("committed", {"web": "outgoing"})
    resolve(source, resume_here=True)
    waiting.join()
    assert source.runs
    assert marks(source) == [Mark.ABORTED]
    wire.close()


def test_a_copy_that_ended_before_it_was_confirmed_is_not_resumed_elsewhere_by_itself(
    source: Daemon, target: Daemon
) -> None:
    target.host.fail(Step.RESUME, times=1000)
    waiting = threading.Thread(target=source.migrate, args=[target.port])
    waiting.start()
    assert settled(lambda: bool(target.client.call("status")["relocations"]), target)
    assert settled(lambda: "told to fail" in str(row(target).get("trouble")), source, target)
    target.lose_domain()
    assert settled(lambda: marks(target) == [Mark.LOST], source, target)
    assert settled(lambda: "may have run" in row(source)["there"], source)
    assert source.states() == {"web": "outgoing"}, "the last copy is kept"
    source.stop()
    source.start()
    assert settled(lambda: "may have run" in row(source)["there"], source)
    resolve(source, resume_here=False)
    waiting.join()
    assert marks(source) == [Mark.DONE]
