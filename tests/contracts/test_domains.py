"""The contract of a driver, first part: domains that stay on their host."""

from __future__ import annotations

import hashlib
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from attrs import evolve

from relocd.errors import BadState, DriverError, UnknownDomain
from relocd.model import BootFile, DomainState
from tests.contracts.rigs import Host, Rig
from tests.reactor import call, run


def test_a_created_domain_runs_and_is_listed(rig: Rig) -> None:
    config = rig.config()
    status = run(rig.a.driver.create(config))
    assert status.state is DomainState.RUNNING
    assert [listed.uuid for listed in call(rig.a.driver.list)] == [config.uuid]
    listed = call(rig.a.driver.get, config.uuid)
    assert listed is not None
    assert (listed.id, listed.config) == (status.id, status.config)
    assert rig.a.heard == []


def test_what_is_left_open_is_fixed_by_names_that_the_facts_offer(rig: Rig) -> None:
    fixed = run(rig.a.driver.create(rig.config())).config
    facts = call(rig.b.driver.facts)
    assert fixed.machine in facts.machines
    assert fixed.cpu in facts.cpu_models
    assert fixed.accelerator in facts.accelerators
    assert fixed.hypervisor == facts.driver == rig.a.driver.name
    assert fixed.architecture == facts.architecture


def test_ids_count_up_and_are_never_used_again(rig: Rig) -> None:
    first = run(rig.a.driver.create(rig.config()))
    run(rig.a.driver.destroy(first.uuid))
    rig.a.restart()
    second, third = run(rig.a.driver.create(rig.config())), run(rig.a.driver.create(rig.config()))
    assert first.id < second.id < third.id
    assert [listed.id for listed in call(rig.a.driver.list)] == [second.id, third.id]


def test_created_paused(rig: Rig) -> None:
    config = rig.config()
    assert run(rig.a.driver.create(config, paused=True)).state is DomainState.PAUSED
    run(rig.a.driver.unpause(config.uuid))
    assert _state(rig.a, config.uuid) is DomainState.RUNNING


def test_pause_and_unpause_as_often_as_one_likes(rig: Rig) -> None:
    uuid = run(rig.a.driver.create(rig.config())).uuid
    for _ in range(2):
        for _ in range(2):
            run(rig.a.driver.pause(uuid))
            assert _state(rig.a, uuid) is DomainState.PAUSED
        for _ in range(2):
            run(rig.a.driver.unpause(uuid))
            assert _state(rig.a, uuid) is DomainState.RUNNING
    assert rig.a.heard == []


def test_destroy_leaves_nothing(rig: Rig) -> None:
    uuid = run(rig.a.driver.create(rig.config())).uuid
    assert rig.leftovers(rig.a) != []
    run(rig.a.driver.destroy(uuid))
    assert call(rig.a.driver.get, uuid) is None
    assert rig.leftovers(rig.a) == []
    assert rig.a.heard == []


def test_the_same_uuid_twice_is_refused_and_the_first_goes_on(rig: Rig) -> None:
    config = rig.config()
    run(rig.a.driver.create(config))
    with pytest.raises(BadState, match="here already"):
        run(rig.a.driver.create(config))
    assert _state(rig.a, config.uuid) is DomainState.RUNNING


def test_unknown_domains(rig: Rig) -> None:
    for action in (rig.a.driver.pause, rig.a.driver.unpause, rig.a.driver.destroy, rig.a.driver.shutdown):
        with pytest.raises(UnknownDomain):
            run(action(uuid4()))
    assert call(rig.a.driver.get, uuid4()) is None


def test_boot_files_go_into_the_store_by_their_content(rig: Rig, tmp_path: Path) -> None:
    kernel = rig.boot_file(tmp_path, "kernel")
    config = run(rig.a.driver.create(evolve(rig.config(), kernel=kernel))).config
    content = Path(kernel.path).read_bytes()
    assert config.kernel is not None
    assert config.kernel.path == kernel.path
    assert config.kernel.sha256 == hashlib.sha256(content).hexdigest()
    assert config.kernel.size_bytes == len(content)
    assert (rig.a.paths.boot / config.kernel.sha256).read_bytes() == content


def test_a_boot_file_that_cannot_be_read_is_named_and_leaves_nothing(rig: Rig) -> None:
    with pytest.raises(DriverError, match="cannot read /none"):
        run(rig.a.driver.create(evolve(rig.config(), kernel=BootFile("/none"))))
    assert rig.leftovers(rig.a) == []


def test_a_domain_that_dies_is_told_and_cleared_away(rig: Rig) -> None:
    uuid = run(rig.a.driver.create(rig.config())).uuid
    rig.kill(rig.a, uuid)
    rig.a.wait_gone(uuid)
    *before, last = [(change.uuid, change.state) for change in rig.a.heard]
    assert last == (uuid, None)
    assert before in ([], [(uuid, DomainState.PAUSED)])  # Xen pauses a domain before it takes it apart
    assert "killed" in rig.a.heard[-1].reason
    assert call(rig.a.driver.get, uuid) is None


def test_a_restart_of_the_driver_finds_every_domain_as_it_was(rig: Rig) -> None:
    running = run(rig.a.driver.create(rig.config()))
    paused = run(rig.a.driver.create(rig.config(), paused=True))
    rig.a.restart()
    found = {status.uuid: status for status in call(rig.a.driver.list)}
    for before in (running, paused):
        after = found[before.uuid]
        assert (after.id, after.state, after.config) == (before.id, before.state, before.config)
    run(rig.a.driver.pause(running.uuid))
    run(rig.a.driver.unpause(paused.uuid))
    assert _state(rig.a, running.uuid) is DomainState.PAUSED
    assert _state(rig.a, paused.uuid) is DomainState.RUNNING


def _state(host: Host, uuid: UUID) -> DomainState | None:
    status = call(host.driver.get, uuid)
    return status.state if status else None


def test_what_a_guest_does_to_its_memory_is_measured_and_nobody_notices(rig: Rig) -> None:
    config = rig.config()
    uuid = run(rig.a.driver.create(config)).uuid
    if not rig.measures:
        with pytest.raises(DriverError, match="does not tell"):
            run(rig.a.driver.measure(uuid))
        return
    load = run(rig.a.driver.measure(uuid))
    one, two = load.dirtied_bytes
    assert 0 <= one <= two
    assert 0 <= load.in_use_bytes <= config.memory_mib << 20
    assert _state(rig.a, uuid) is DomainState.RUNNING
    run(rig.a.driver.pause(uuid))
    paused = run(rig.a.driver.measure(uuid))
    assert paused.dirtied_bytes == (0, 0)
    assert paused.in_use_bytes > 0
    assert _state(rig.a, uuid) is DomainState.PAUSED
    assert rig.a.heard == []


def test_a_domain_that_is_not_this_hosts_own_is_not_measured(rig: Rig) -> None:
    with pytest.raises(UnknownDomain):
        run(rig.a.driver.measure(uuid4()))
    incoming = call(rig.a.driver.incoming, run(rig.b.driver.create(rig.config())).config)
    run(incoming.prepare()).close()
    (uuid,) = (status.uuid for status in call(rig.a.driver.list))
    with pytest.raises(BadState):
        run(rig.a.driver.measure(uuid))
    run(incoming.discard())
