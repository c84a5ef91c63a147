"""Who may be connected at once, what a flood leaves in the log, and what a hanging resolver costs."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from twisted.internet.defer import DeferredList
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher

from relocd.config import Config
from relocd.daemon import lookup
from relocd.daemon.crowd import MAX_STRANGERS, MAX_STRANGERS_PER_HOST, Crowd, Stage, host_of
from relocd.daemon.flow import MESSAGE_BYTES_PER_S_MAX, MESSAGES_PER_S_MAX, Pace
from relocd.daemon.lookup import MAX_LOOKUPS, Resolver
from relocd.daemon.refusals import LINE_EACH_S, LINES, Refusals
from relocd.daemon.stall import PATIENCE_MIN_S, StallWatch
from relocd.errors import ProtocolError
from tests.reactor import run


def test_strangers_do_not_keep_out_those_who_are_known() -> None:
    """Whoever may not come in costs a lookup, not a place."""
    crowd = Crowd(lambda: Config(max_connections=4))
    for number in range(MAX_STRANGERS):
        assert not crowd.refusal(f"10.0.0.{number}", Stage.STRANGER)
        crowd.enter(f"10.0.0.{number}", Stage.STRANGER)
    assert crowd.refusal("10.0.0.99", Stage.STRANGER)
    assert not crowd.refusal("10.0.0.99", Stage.GREETING)


def test_one_strange_host_does_not_keep_out_the_others() -> None:
    crowd = Crowd(Config)
    for _ in range(MAX_STRANGERS_PER_HOST):
        crowd.enter("10.0.0.1", Stage.STRANGER)
    assert crowd.refusal("10.0.0.1", Stage.STRANGER)
    assert not crowd.refusal("10.0.0.2", Stage.STRANGER)


def test_who_leaves_or_comes_further_makes_room() -> None:
    crowd = Crowd(lambda: Config(max_connections=2, max_connections_per_host=2, max_handshakes=1))
    first = crowd.enter("10.0.0.1", Stage.GREETING)
    assert "at their beginning" in crowd.refusal("10.0.0.2", Stage.GREETING)
    crowd.move(first, Stage.TALKING)
    assert not crowd.refusal("10.0.0.1", Stage.GREETING)
    second = crowd.enter("10.0.0.1", Stage.GREETING)
    assert crowd.count == 2
    assert "2 connections are open" in crowd.refusal("10.0.0.2", Stage.GREETING)
    crowd.leave(first)
    crowd.leave(second)
    assert crowd.count == 0
    assert not crowd._of_host, "nothing is kept of those who are gone"


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("10.0.0.1", "10.0.0.2", False),
        ("2001:db8::1", "2001:db8::ffff:2", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1", "fe80::2", False),
    ],
)
def test_what_counts_as_one_host(one: str, other: str, same: bool) -> None:
    assert (host_of(one) == host_of(other)) is same


@pytest.fixture
def lines() -> Iterator[list[str]]:
    heard: list[str] = []

    def hear(event: dict[str, object]) -> None:
        if "reason" in event:
            heard.append(f"{event['peer']}{event.get('more', '')}")

    globalLogPublisher.addObserver(hear)
    yield heard
    globalLogPublisher.removeObserver(hear)


def test_a_flood_does_not_fill_the_log(lines: list[str]) -> None:
    clock = Clock()
    refusals = Refusals(clock)
    for _ in range(5000):
        refusals.note("10.0.0.1", "no")
    assert len(lines) == LINES
    clock.advance(LINE_EACH_S)
    refusals.note("10.0.0.2", "no")
    assert lines[-1] == f"10.0.0.2 ({5000 - LINES} others before it are not in this log)"


def test_the_pace_of_messages_is_bounded_for_each_second() -> None:
    pace = Pace()
    for second in range(3):
        for _ in range(MESSAGES_PER_S_MAX):
            pace.count(100.0 + second, 10)
    with pytest.raises(ProtocolError, match="in a second"):
        pace.count(102.5, 10)
    pace.count(104.0, MESSAGE_BYTES_PER_S_MAX)
    with pytest.raises(ProtocolError, match="in a second"):
        pace.count(104.5, 1)


def test_a_stall_is_silence_while_something_is_due() -> None:
    clock = Clock()
    watch = StallWatch(clock)
    clock.advance(1000)
    watch.rest()
    clock.advance(PATIENCE_MIN_S)
    assert not watch.stalled_s(1.0)
    clock.advance(1)
    assert watch.stalled_s(1.0) == PATIENCE_MIN_S + 1
    assert not watch.stalled_s(100.0)
    watch.moved(5)
    assert not watch.stalled_s(1.0)
    clock.advance(PATIENCE_MIN_S + 1)
    watch.moved(5)
    assert watch.stalled_s(1.0), "the same count again is no progress"


def test_an_address_is_looked_up_once_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a resolver that hangs, one peer that connects often must not use up all lookups."""
    asked: list[str] = []
    go_on = threading.Event()

    def slow(address: str) -> tuple[str, ...]:
        asked.append(address)
        if address == "10.0.0.1":
            go_on.wait(20)
        return (f"name-of-{address}",)

    monkeypatch.setattr(lookup, "confirmed_names", slow)

    async def ask() -> list[tuple[bool, tuple[str, ...]]]:
        from twisted.internet import reactor
        from twisted.internet.defer import Deferred

        resolver = Resolver(reactor, 20.0)
        often = [Deferred.fromCoroutine(resolver.confirmed_names("10.0.0.1")) for _ in range(MAX_LOOKUPS * 2)]
        assert await resolver.confirmed_names("10.0.0.2") == ("name-of-10.0.0.2",)
        go_on.set()
        answers: list[tuple[bool, tuple[str, ...]]] = await DeferredList(often)
        return answers

    assert run(ask()) == [(True, ("name-of-10.0.0.1",))] * MAX_LOOKUPS * 2
    assert asked.count("10.0.0.1") == 1
