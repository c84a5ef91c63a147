"""Predictions on real guests and a link of known speed: what they say, and what comes of it."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.scene import Scene
from tests.testbed.network import Shape

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

LINK_BYTES_S = 300_000_000 / 8
MIB = 1 << 20


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    with Scene(shape=Shape(rate="300mbit")) as scene:
        yield scene


def predict(scene: Scene) -> dict[str, Any]:
    reply = scene.a.relocctl("check", "guest", scene.b.host.address, "--measure").result
    assert reply["passed"]
    prediction: dict[str, Any] = reply["prediction"]
    return prediction


def test_the_busy_guest_is_called_hopeless_and_the_quiet_one_does_as_was_said(
    scene: Scene, tmp_path: Path
) -> None:
    before = scene.start_guest(
        scene.a, memory_mib=320, fill_mib=192, working_set_mib=128, dirty_mb_s=150, content="random"
    )
    busy = predict(scene)
    assert busy["verdict"] == "does-not-converge"
    assert busy["live"] is None
    after = scene.wait_guest(lambda stat: stat.verified > before.verified)
    assert after.follows(before)
    assert after.bad == 0
    scene.a.relocctl("destroy", "guest")

    scene.start_guest(scene.a, memory_mib=320, fill_mib=192, working_set_mib=64, dirty_mb_s=4)
    quiet = predict(scene)
    assert quiet["verdict"] == "converges"
    assert quiet["measured"]["dirty_rate_bytes_s"] < busy["measured"]["dirty_rate_bytes_s"]
    assert 192 * MIB < quiet["measured"]["memory_in_use_bytes"] <= 320 * MIB
    assert quiet["measured"]["link_bytes_s"] < 1.5 * LINK_BYTES_S
    assert quiet["live"]["downtime_ms"] < quiet["offline"]["downtime_ms"]

    outcome = scene.a.relocctl("migrate", "--live", "guest", scene.b.host.address).result
    assert outcome["outcome"] == "completed"
    assert quiet["live"]["wire_bytes"] / 4 < outcome["bytes_sent"] < quiet["live"]["wire_bytes"] * 4
    (record,) = scene.a.relocctl("history", outcome["relocation"], "--plot", tmp_path / "moved.svg").result
    told = [moment for moment in record["timeline"] if moment["kind"] == "prediction"]
    assert [moment["live"] for moment in told] == [quiet["live"]]
    lines = ET.parse(tmp_path / "moved.svg").iter("{http://www.w3.org/2000/svg}polyline")
    assert len(list(lines)) >= 2
    back = scene.b.relocctl("check", "guest", scene.a.host.address, "--measure").result["prediction"]
    assert 0 < back["measured"]["dirty_rate_bytes_s"] < busy["measured"]["dirty_rate_bytes_s"]
    assert 192 * MIB < back["measured"]["memory_in_use_bytes"] <= 320 * MIB
