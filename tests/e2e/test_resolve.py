"""A host dies for good between the decision and its confirmation, on real guests: what an operator can do."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.e2e.conftest import Witness
from tests.link import Place, Wire, between
from tests.scene import GUEST_UUID, Moving, Scene
from tests.testbed.daemons import RelocdHost

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def place(scene: Scene) -> Iterator[Place]:
    with between(scene.a.host, scene.b.host) as place:
        yield place


def die(host: RelocdHost) -> None:
    """The whole host: its daemon and its domains."""
    host.kill()
    host.kill_domains()


def committed(scene: Scene, place: Place) -> tuple[Wire, Moving]:
    """A relocation from a to b whose commit is on its way."""
    wire = Wire(place, "(commit", action="hold")
    moving = scene.begin_move(scene.a, scene.b)
    assert wire.struck.wait(60)
    return wire, moving


def states(host: RelocdHost) -> dict[str, str]:
    return {domain["uuid"]: domain["state"] for domain in host.relocctl("list").result}


def wait_settled(host: RelocdHost) -> None:
    """Return once a host has nothing under way; it asks the other one in growing pauses."""
    deadline = time.monotonic() + 30
    while found := host.relocctl("status").result:
        assert time.monotonic() < deadline, found
        time.sleep(0.1)


def test_the_target_is_gone_and_the_source_takes_its_domain_back(scene: Scene, place: Place) -> None:
    witness = Witness(scene)
    wire, moving = committed(scene, place)
    refused = scene.a.relocctl("resolve", "guest", "--resume-here", "--yes", check=False)
    assert refused.exit_code == 2
    assert "settle this by themselves" in refused.stderr
    die(scene.b)
    wire.cut()

    unsure = scene.a.relocctl("resolve", "guest", "--resume-here", check=False)
    assert unsure.exit_code == 2
    assert "twice" in unsure.stderr
    assert states(scene.a) == {GUEST_UUID: "outgoing"}

    (row,) = scene.a.relocctl("status").result
    assert row["mark"] == "committed"
    decided = scene.a.relocctl("resolve", row["relocation"], "--resume-here", "--yes").result
    assert decided["decided"] is True
    code, outcome = moving.finish()
    assert code == 1
    assert "operator" in outcome["error"]

    (record,) = scene.a.relocctl("history", row["relocation"]).result
    assert [m["does"] for m in record["timeline"] if m["kind"] == "operator"] == ["resume-here"]
    scene.b.start()
    witness.runs_on_a()
    wire.close()


def test_the_source_is_gone_and_the_target_takes_the_domain(scene: Scene, place: Place) -> None:
    witness = Witness(scene)
    wire, moving = committed(scene, place)
    die(scene.a)
    wire.cut()
    code, outcome = moving.finish()
    assert (code, outcome["outcome"]) == (12, "unknown")

    (row,) = scene.b.relocctl("status").result
    assert (row["state"], row["mark"]) == ("prepared", "begun")
    scene.b.relocctl("resolve", "guest", "--resume-here", "--yes")
    assert states(scene.b) == {GUEST_UUID: "running"}
    scene.a.start()
    wait_settled(scene.a)
    witness.runs_on_b()
    wire.close()
