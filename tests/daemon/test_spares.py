"""A carrier waits to be needed, while none is at work. The carriers are real processes."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from relocd.carrier.control import CarrierFailed, CarrierReady, Event
from relocd.daemon.carriers import Carrier, CarrierDied
from relocd.daemon.spares import Spares
from tests.daemon.rig import Daemon, arrived, settled
from tests.reactor import call


class Work:
    """A carrier in somebody's hands, and what it said to him."""

    def __init__(self, spares: Spares) -> None:
        """In the reactor's thread."""
        self.heard: list[Event | CarrierDied] = []
        self.carrier = spares.take(self.heard.append)

    def works(self) -> bool:
        """Whether it hears commands: one that cannot be obeyed yet ends it, with that reason."""
        call(self.carrier.ask_digest)
        assert settled(lambda: any(not isinstance(event, CarrierReady) for event in self.heard))
        return isinstance(self.heard[-1], CarrierFailed) and "must be told" in self.heard[-1].text


@pytest.fixture
def spares() -> Iterator[Spares]:
    def make() -> Spares:
        from twisted.internet import reactor

        return Spares(reactor, quiet_s=0.0, retry_s=0.0)

    spares = call(make)
    yield spares
    call(spares.stop)


def waiting(spares: Spares) -> Carrier:
    """The one that waits, once there is one."""
    assert settled(lambda: call(lambda: spares._spare) is not None)
    carrier = call(lambda: spares._spare)
    assert carrier is not None
    return carrier


def idle(spares: Spares) -> bool:
    """Neither is there one that waits, nor will there soon be."""
    refill = spares._refill
    return spares._spare is None and (refill is None or not refill.active())


def gone(carrier: Carrier) -> Callable[[], bool]:
    return lambda: not Path(f"/proc/{carrier._pid}").exists()


def test_the_one_that_waits_is_given_out_and_works(spares: Spares) -> None:
    call(spares.start)
    spare = waiting(spares)
    work = call(Work, spares)
    assert work.carrier is spare
    assert work.works()


def test_without_one_that_waits_another_is_started(spares: Spares) -> None:
    assert call(Work, spares).works()


def test_none_waits_while_one_is_at_work_and_the_next_when_all_are_done(spares: Spares) -> None:
    call(spares.start)
    waiting(spares)
    first, second = call(Work, spares), call(Work, spares)
    assert call(idle, spares)
    call(first.carrier.close)
    assert call(idle, spares)
    assert second.works()  # which takes a while, and ends it
    assert waiting(spares) not in (first.carrier, second.carrier)


def test_one_that_dies_while_it_waits_is_replaced(spares: Spares) -> None:
    call(spares.start)
    spare = waiting(spares)
    os.kill(spare._pid, signal.SIGKILL)
    assert settled(lambda: call(lambda: spares._spare) not in (None, spare))
    assert call(Work, spares).works()


def test_one_that_has_just_died_is_not_given_out(spares: Spares) -> None:
    call(spares.start)
    spare = waiting(spares)

    def kill_and_take() -> Work:
        os.kill(spare._pid, signal.SIGKILL)
        os.waitid(os.P_PID, spare._pid, os.WEXITED | os.WNOWAIT)
        return Work(spares)

    work = call(kill_and_take)
    assert work.carrier is not spare
    assert work.works()


def test_one_that_cannot_be_started_is_tried_again(spares: Spares, monkeypatch: pytest.MonkeyPatch) -> None:
    start, failed = Carrier.start, []

    def fail_once(reactor: object) -> Carrier:
        if not failed:
            failed.append(True)
            raise OSError("no more processes")
        return start(reactor)

    monkeypatch.setattr(Carrier, "start", fail_once)
    call(spares.start)
    waiting(spares)
    assert failed


def test_after_a_stop_none_waits_and_none_is_started(spares: Spares) -> None:
    call(spares.start)
    spare = waiting(spares)
    call(spares.stop)
    assert settled(gone(spare))
    work = call(Work, spares)
    assert work.works()
    assert call(idle, spares)


def test_a_relocation_takes_it_on_both_sides(source: Daemon, target: Daemon) -> None:
    both = [daemon.service._context.carriers for daemon in (source, target)]
    for carriers in both:
        carriers._quiet_s = 0.0
        call(carriers.start)
    waited = [waiting(carriers) for carriers in both]
    assert source.migrate(target.port)["outcome"] == "completed"
    arrived(source, target)
    assert settled(lambda: all(gone(carrier)() for carrier in waited), source, target)
