"""The driver's main paths on a stand-in for xl; ``make test-xen`` runs the whole contract on it, and real hosts."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest
from attrs import evolve

from relocd.errors import DriverError
from relocd.model import DomainState
from tests.contracts.move import Move
from tests.contracts.rigs import Host, StandinRig
from tests.reactor import call, run

RUNNING, PAUSED = DomainState.RUNNING, DomainState.PAUSED


@pytest.fixture
def rig() -> Iterator[StandinRig]:
    rig = StandinRig()
    yield rig
    rig.close()


def test_live_and_back_with_a_new_daemon_on_each_side(rig: StandinRig) -> None:
    config = run(rig.a.driver.create(rig.config())).config
    move = Move(rig.a, rig.b, config).to("finished")
    move.restart_source()
    move.restart_target()
    assert move.states() == (DomainState.OUTGOING, DomainState.INCOMING)
    assert move.complete().states() == (None, RUNNING)
    back = Move(rig.b, rig.a, config).to("finished")
    back.restart_source()
    run(back.outgoing.cancel())
    run(back.incoming.discard())
    back.close()
    assert back.states() == (RUNNING, None)
    assert rig.leftovers(rig.a) == []


def test_a_paused_domain_runs_a_moment_and_stays_paused(rig: StandinRig) -> None:
    config = run(rig.a.driver.create(rig.config(), paused=True)).config
    move = Move(rig.a, rig.b, config).to("paused")
    run(move.outgoing.cancel())
    run(move.incoming.discard())
    move.close()
    assert move.states() == (PAUSED, None)
    assert Move(rig.a, rig.b, config).complete(paused=True).states() == (None, PAUSED)


def test_a_pause_by_somebody_else_is_known_when_a_relocation_begins(rig: StandinRig) -> None:
    config = run(rig.a.driver.create(rig.config())).config
    subprocess.run(["xl", "pause", str(rig.domids(rig.a)[config.uuid])], check=True)
    run(rig.a.driver.refresh())
    assert _state(rig.a) is PAUSED
    assert Move(rig.a, rig.b, config).complete(paused=True).states() == (None, PAUSED)


def test_pv_moves_only_offline_where_xen_cannot_follow_its_writes(rig: StandinRig) -> None:
    config = run(rig.a.driver.create(evolve(rig.config(), machine="pv"))).config
    outgoing = call(rig.a.driver.outgoing, config.uuid)
    with pytest.raises(DriverError, match="shadow paging"):
        call(lambda: outgoing.require(live=True))
    call(lambda: outgoing.require(live=False))
    with pytest.raises(DriverError, match="shadow paging"):
        run(outgoing.start(live=True, downtime_limit_ms=20))
    assert _state(rig.a) is RUNNING
    assert Move(rig.a, rig.b, config, live=False).complete().states() == (None, RUNNING)


def _state(host: Host) -> DomainState | None:
    (status,) = call(host.driver.list)
    return status.state


def test_what_becomes_of_a_guest_that_ends_is_relocds_to_do(rig: StandinRig) -> None:
    first = run(rig.a.driver.create(rig.config()))
    run(rig.a.driver.reboot(first.uuid))
    rig.a.wait_heard(1)
    assert rig.a.heard[0].reason == "restarted after reboot"
    assert call(rig.a.driver.get, first.uuid) is not None
    run(rig.a.driver.shutdown(first.uuid))
    rig.a.wait_gone(first.uuid)
    assert rig.a.heard[-1].reason == "power-off of the guest"
