"""Pictures of the bench: well-formed for every scenario, with the figures of the run that is shown."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest
from attrs import evolve

from tests.bench.encrypted import PLAIN
from tests.bench.figures import OWN, Figures
from tests.bench.four import ALONE, AT_ONCE, GUESTS, IN_TURN
from tests.bench.machine import Machine
from tests.bench.peer import METHODS
from tests.bench.plot import picture, quiet_points, rate_points
from tests.bench.report import Result, report, result_object, run_text
from tests.bench.scenarios import SCENARIOS, Kind

SVG = "{http://www.w3.org/2000/svg}"
MACHINE = Machine("0.1.0", "abc", "7.2.22", "tcg", "6.1", "3.11", "<&>", 2, 4096, 0.5)
ROW = Figures(
    completed=True,
    memory_mib=1024,
    total_s=2.0,
    wire_bytes=200_000_000,
    sent_bytes=190_000_000,
    rounds=3,
    cpu_s=4.0,
    load=2.0,
    downtime_ms=9.0,
    blackout_ms=56.0,
    gap_ms=80.0,
    private_mib=90.0,
    wire=[(0.0, 0), (0.5, 50_000_000), (1.0, 100_000_000), (1.5, 200_000_000), (2.0, 200_000_000)],
    remaining=[(0.1, 1 << 30), (1.0, 1 << 28), (2.0, 0)],
    silences=[(0.2, 80.0), (1.9, 56.0)],
)
GIVEN_UP = evolve(
    ROW, completed=False, total_s=30.0, blackout_ms=None, gap_ms=None, downtime_ms=None, private_mib=None
)


def result(name: str, peer: Figures = ROW) -> Result:
    scenario = SCENARIOS[name]
    own = [
        evolve(ROW, memory_mib=load.memory_mib, total_s=2 + load.memory_mib / 1024) for load in scenario.loads
    ]
    if scenario.kind is Kind.FOUR:
        runs = {IN_TURN: own, AT_ONCE: own, ALONE: own * GUESTS, OWN: own * GUESTS}
    elif scenario.kind is Kind.ENCRYPTED:
        runs = {PLAIN: own, OWN: own}
    else:
        runs = {**{METHODS[method].name: [peer] for method in scenario.peers}, OWN: own}
    return Result.of(name, scenario, runs, 0)


def texts(document: str) -> list[str]:
    return [text.text or "" for text in ET.fromstring(document).iter(f"{SVG}text")]


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_scenario_has_a_picture_a_table_and_an_object(name: str) -> None:
    found = result(name)
    words = texts(picture(found, MACHINE))
    assert words[0] == f"{name}: {found.scenario.title}"
    assert any(word.endswith((", MiB/s", ", MiB", ", GiB", ", s", ", ms")) for word in words)
    assert all(f"  {goal.name}: " in "\n".join(report(found)) for goal in found.scenario.goals)
    assert len(result_object(found)["runs"][OWN]) == len(found.runs[OWN])
    assert found.sound


def test_a_picture_tells_time_bytes_and_blackout_of_each() -> None:
    words = texts(picture(result("gigabit"), MACHINE))
    assert {f"{OWN}: 4.0 s", f"{OWN}: 200 MB sent", f"{OWN}: 56 ms"} <= set(words)
    assert {"qemu tcp: 2.0 s", "qemu tcp: 200 MB sent", "qemu tcp: 56 ms"} <= set(words)


def test_what_did_not_end_is_given_up_and_has_no_blackout() -> None:
    found = result("busy", GIVEN_UP)
    words = texts(picture(found, MACHINE))
    assert {"qemu tcp: given up after 30 s", "qemu tcp: no switchover"} <= set(words)
    assert any(line.startswith("qemu tcp") and line.endswith("given up") for line in report(found))
    assert run_text(0, "qemu tcp", GIVEN_UP).endswith("given up")


def test_a_peer_that_gives_up_is_no_fault_of_relocd_but_bad_pages_are() -> None:
    assert result("busy", GIVEN_UP).sound
    assert not evolve(result("busy"), bad_pages=1).sound
    assert not evolve(result("busy"), runs={OWN: [GIVEN_UP]}).sound


def test_rates_are_what_was_sent_over_the_time_before() -> None:
    assert rate_points(ROW) == ((0.0, 0.0), (0.5, 1e8), (1.0, 1e8), (1.5, 2e8), (2.0, 0.0))


def test_a_silence_that_outlasts_the_move_is_shown_whole() -> None:
    points = quiet_points(evolve(ROW, silences=[(1.9, 300.0)]))
    assert [at_s for at_s, _ in points] == pytest.approx([0, 1.9, 2.2, 2.2, 2.2])
    assert [long_ms for _, long_ms in points] == [0, 0, 300, 0, 0]


def test_a_silence_is_a_ramp_as_high_as_it_is_long() -> None:
    ramp = [point for point in quiet_points(ROW, 10.0) if 11.8 < point[0] < 11.99]
    assert ramp == [(11.9, 0.0), (pytest.approx(11.956), 56.0), (pytest.approx(11.956), 0.0)]
