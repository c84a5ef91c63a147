"""The contract of a driver, third part: the daemon is restarted while a domain is on its way."""

from __future__ import annotations

import pytest

from relocd.errors import DriverError
from relocd.model import DomainState
from tests.contracts.move import STAGES, Move
from tests.contracts.rigs import Rig
from tests.contracts.test_relocation import GONE, INCOMING, OUTGOING, PAUSED, RUNNING, create
from tests.reactor import call, run


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("paused", [False, True])
def test_a_restarted_source_can_cancel(rig: Rig, stage: str, paused: bool) -> None:
    move = Move(rig.a, rig.b, create(rig, paused=paused)).to(stage)
    move.restart_source()
    move.cut()
    run(move.outgoing.cancel())
    run(move.incoming.discard())
    move.close()
    assert move.states() == (PAUSED if paused else RUNNING, GONE)
    assert rig.leftovers(rig.b) == []


def test_a_restarted_source_can_release(rig: Rig) -> None:
    move = Move(rig.a, rig.b, create(rig)).to("finished")
    move.restart_source()
    assert move.states() == (OUTGOING, INCOMING)
    run(move.incoming.resume(paused=False))
    run(move.outgoing.release())
    move.close()
    assert move.states() == (GONE, RUNNING)
    assert rig.leftovers(rig.a) == []


def test_a_restarted_source_still_knows_that_the_domain_was_paused(rig: Rig) -> None:
    for paused in (False, True):
        move = Move(rig.a, rig.b, create(rig, paused=paused)).to("finished")
        move.restart_source()
        assert call(getattr, move.outgoing, "was_paused") is paused
        move.complete(paused=paused)


@pytest.mark.parametrize("stage", STAGES)
def test_a_restarted_target_can_discard(rig: Rig, stage: str) -> None:
    move = Move(rig.a, rig.b, create(rig)).to(stage)
    move.restart_target()
    move.cut()
    run(move.incoming.discard())
    run(move.outgoing.cancel())
    move.close()
    assert move.states() == (RUNNING, GONE)
    assert rig.leftovers(rig.b) == []


@pytest.mark.parametrize("paused", [False, True])
def test_a_restarted_target_can_resume(rig: Rig, paused: bool) -> None:
    move = Move(rig.a, rig.b, create(rig, paused=paused)).to("finished")
    move.restart_target()
    assert move.states() == (OUTGOING, INCOMING)
    run(move.incoming.loaded())
    move.complete(paused=paused)
    assert move.states() == (GONE, PAUSED if paused else RUNNING)


def test_a_restarted_target_that_had_resumed_may_be_asked_to_resume_again(rig: Rig) -> None:
    move = Move(rig.a, rig.b, create(rig)).complete()
    move.restart_target()
    run(move.incoming.resume(paused=False))
    assert move.states() == (GONE, RUNNING)


def test_a_target_whose_stream_ended_with_the_daemon_is_not_loaded(rig: Rig) -> None:
    move = Move(rig.a, rig.b, create(rig)).to("started")
    move.cut()
    with pytest.raises(DriverError):
        run(move.incoming.loaded())
    move.restart_target()
    with pytest.raises(DriverError):
        run(move.incoming.loaded())
    run(move.incoming.discard())
    run(move.outgoing.cancel())
    move.close()
    assert move.states() == (DomainState.RUNNING, GONE)
    assert rig.leftovers(rig.b) == []
