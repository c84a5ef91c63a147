"""Disks that are really full, at the decision and at every other write: the domain is never lost, never doubled."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from relocd.drivers.memory import forget_hosts
from relocd.handover.record import Mark
from tests.daemon.rig import DOMAIN_FILE, Daemon, Held, arrived, at_home, marks, settled
from tests.disk import small_disk

pytestmark = pytest.mark.netns


@pytest.fixture
def source(directory: Path) -> Iterator[Daemon]:
    with small_disk(directory / "source" / "state", size_kib=1024):
        daemon = Daemon(directory / "source", switchover_timeout_s=5.0)
        daemon.client.call("create", config=DOMAIN_FILE, source="web.cfg")
        yield daemon
        daemon.empty_disk()
        daemon.stop()
    forget_hosts()


@pytest.fixture
def target(directory: Path) -> Iterator[Daemon]:
    with small_disk(directory / "target" / "state", size_kib=1024):
        daemon = Daemon(directory / "target")
        yield daemon
        daemon.empty_disk()
        daemon.stop()


def test_a_source_without_room_begins_nothing(source: Daemon, target: Daemon) -> None:
    source.fill_disk()
    outcome = source.migrate(target.port)
    assert (outcome["outcome"], outcome["code"], outcome["exit_code"]) == ("failed", "journal", 10)
    assert "full" in outcome["error"]
    assert source.runs
    assert not target.host.domains
    source.empty_disk()
    assert settled(lambda: source.client.call("status")["relocations"] == [], source)
    assert source.migrate(target.port)["outcome"] == "completed"


def test_a_decision_that_finds_no_room_is_none(source: Daemon, target: Daemon) -> None:
    held = Held(source, target, "(prepared")
    source.fill_disk()
    outcome = held.go_on()
    assert (outcome["outcome"], outcome["code"]) == ("failed", "journal")
    assert settled(lambda: source.runs and not target.host.domains, source, target)
    (row,) = source.client.call("status")["relocations"]
    assert row["state"] == "aborted", "it is not over before its end is on disk"
    source.empty_disk()
    at_home(source, target)
    assert source.migrate(target.port)["outcome"] == "completed"


def test_a_target_without_room_refuses_before_anything_moves(source: Daemon, target: Daemon) -> None:
    target.fill_disk()
    outcome = source.migrate(target.port)
    assert outcome["outcome"] == "failed"
    assert source.runs
    assert not target.host.domains
    target.empty_disk()
    at_home(source, target)


def test_a_target_that_cannot_write_that_it_owns_runs_nothing_until_it_can(
    source: Daemon, target: Daemon
) -> None:
    held = Held(source, target, "(commit)")
    target.fill_disk()
    held.wire.release()
    assert settled(lambda: target.client.call("status")["relocations"][0]["state"] == "owning", target)
    assert not source.runs
    assert not target.runs
    assert target.client.call("status")["relocations"][0]["mark"] == "begun"
    target.empty_disk()
    assert held.go_on()["outcome"] == "completed"
    arrived(source, target)


def test_an_end_that_finds_no_room_waits_for_it_and_the_domain_runs_meanwhile(
    source: Daemon, target: Daemon
) -> None:
    held = Held(source, target, "(resumed)")
    source.fill_disk()
    outcome = held.go_on()
    assert outcome["outcome"] == "completed"
    assert target.runs
    assert marks(source) == [Mark.COMMITTED]
    source.stop()
    source.start()
    source.empty_disk()
    arrived(source, target)


def test_a_daemon_that_is_started_on_a_full_disk_goes_on_when_there_is_room(
    source: Daemon, target: Daemon
) -> None:
    held = Held(source, target, "(commit)")
    source.fill_disk()
    source.stop()
    held.wire.cut()
    source.start()
    assert settled(lambda: target.runs, source, target)
    assert not source.runs
    source.empty_disk()
    arrived(source, target)
