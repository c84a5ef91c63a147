"""A guest that dirties memory faster than the link moves it: given up with the numbers, or ended by a pause."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.conftest import Witness
from tests.scene import Scene
from tests.testbed.daemons import RelocdHost
from tests.testbed.network import UPLINK, Shape

pytestmark = pytest.mark.e2e

MIB = 1 << 20
MAX_DOWNTIME_MS = 10_000


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    """A slow link, and a guest whose working set takes much longer to send than the pause that is aimed for."""
    settings = {"xen-relocation-max-downtime": MAX_DOWNTIME_MS}
    with Scene(shape=Shape(rate="100mbit"), settings=settings) as scene:
        scene.start_guest(scene.a, fill_mib=64, working_set_mib=48, dirty_mb_s=200)
        yield scene


@pytest.fixture
def witness(scene: Scene) -> Witness:
    return Witness(scene)


def migrate(source: RelocdHost, target: RelocdHost, *options: str) -> Any:
    """The outcome of a relocation, however it ended."""
    words = ("migrate", *options, "guest", target.host.address)
    return source.relocctl(*words, check=False).result


def verdicts(host: RelocdHost, outcome: dict[str, Any]) -> list[dict[str, Any]]:
    (record,) = host.ask("history", relocation=outcome["relocation"])["relocations"]
    return [moment for moment in record["timeline"] if moment["kind"] == "verdict"]


def sent_bytes(host: RelocdHost) -> int:
    """What has left a host over its uplink."""
    (link,) = json.loads(host.host.run(["ip", "-s", "-j", "link", "show", "dev", UPLINK]))
    return int(link["stats64"]["tx"]["bytes"])


def test_it_is_given_up_with_the_numbers_and_ends_with_a_longer_pause(scene: Scene, witness: Witness) -> None:
    outcome = migrate(scene.a, scene.b, "--live", "--max-downtime", "20", "--timeout", "20")
    assert (outcome["outcome"], outcome["exit_code"]) == ("failed", 11), str(outcome)
    assert "not done within 20 s: the guest dirties" in outcome["error"]
    assert "B/s, the link moves " in outcome["error"]
    assert "Raise --max-downtime to " in outcome["hint"]
    assert outcome["rounds"] >= 3
    assert {moment["downtime_limit_ms"] for moment in verdicts(scene.a, outcome)} == {20}
    witness.runs_on_a()

    outcome = migrate(scene.a, scene.b, "--live")
    assert outcome["outcome"] == "completed", str(outcome)
    told = verdicts(scene.a, outcome)
    aims = [moment["downtime_limit_ms"] for moment in told]
    assert aims == sorted(aims)
    assert 20 < aims[-1] <= MAX_DOWNTIME_MS
    witness.runs_on_b()


def test_the_cap_holds_on_the_wire(scene: Scene, witness: Witness) -> None:
    """Generously judged: something else is on the link as well, and time passes in which nothing is sent."""
    before = sent_bytes(scene.b)
    outcome = migrate(scene.b, scene.a, "--max-bandwidth", "4M")
    assert outcome["outcome"] == "completed", str(outcome)
    rate = (sent_bytes(scene.b) - before) / outcome["duration_s"]
    print(
        "wire", rate / MIB, "said", outcome["bytes_sent"] / outcome["duration_s"] / MIB, outcome["duration_s"]
    )
    assert outcome["bytes_sent"] > 8 * MIB
    assert 1.5 * MIB < rate < 5 * MIB
    witness.runs_on_a()


def test_throttled_it_converges_with_a_pause_that_was_too_short(scene: Scene, witness: Witness) -> None:
    """The guest works at its full speed again afterwards, as the witness sees."""
    scene.a.reload({"xen-relocation-throttle": "yes", "xen-relocation-max-downtime": 300})
    outcome = migrate(scene.a, scene.b, "--live", "--timeout", "120")
    told = verdicts(scene.a, outcome)
    assert outcome["outcome"] == "completed", str(outcome)
    percents = [moment["throttle_percent"] for moment in told]
    assert percents == sorted(percents)
    assert percents[-1] > 0
    assert max(moment["downtime_limit_ms"] for moment in told) == 300
    witness.runs_on_b()
