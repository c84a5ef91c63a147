"""Plots: well-formed, every point within the canvas, round ticks, no name that breaks out of its place."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relocd.cli.picture import picture
from relocd.cli.plot import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Band,
    Mark,
    Panel,
    Plot,
    Series,
    round_step,
    svg,
)
from relocd.errors import UsageError
from tests.cli.conftest import Run
from tests.cli.control_server import ControlServer

SVG = "{http://www.w3.org/2000/svg}"
MIB = 1 << 20

seconds = st.floats(0, 1e7, allow_nan=False)
sizes = st.floats(0, 1e18, allow_nan=False)
texts = st.text(max_size=60)
curves = st.builds(
    Series,
    texts,
    st.lists(st.tuples(seconds, sizes), min_size=1, max_size=100).map(lambda points: tuple(sorted(points))),
    st.integers(0, 20),
    st.booleans(),
)
bands = st.tuples(seconds, seconds, texts).map(lambda t: Band(min(t[:2]), max(t[:2]), t[2]))
plots = st.builds(
    Plot,
    texts,
    texts,
    st.lists(
        st.builds(Panel, texts, st.lists(curves, min_size=1, max_size=7).map(tuple)), min_size=1, max_size=3
    ).map(tuple),
    st.lists(st.builds(Mark, seconds, texts, st.booleans()), max_size=20).map(tuple),
    st.lists(bands, max_size=3).map(tuple),
    texts,
)


def drawn(root: ET.Element, shape: str) -> list[list[tuple[float, float]]]:
    """The points of all shapes of a kind."""
    lines = [str(element.get("points")) for element in root.iter(f"{SVG}{shape}")]
    return [[(float(x), float(y)) for x, y in (pair.split(",") for pair in line.split())] for line in lines]


@given(plots)
def test_every_plot_is_xml_with_all_its_points_inside(plot: Plot) -> None:
    root = ET.fromstring(svg(plot))
    curves = [series for panel in plot.panels for series in panel.series]
    lines = drawn(root, "polyline")
    assert [len(line) for line in lines] == [len(series.points) for series in curves]
    for x, y in (point for line in lines + drawn(root, "polygon") for point in line):
        assert LEFT <= x <= WIDTH - RIGHT
        assert TOP <= y <= HEIGHT - BOTTOM
    for rect in root.iter(f"{SVG}rect"):
        x, width = float(rect.get("x", 0)), float(rect.get("width", 0))
        assert x >= 0
        assert x + width <= WIDTH + 0.1
    for text in root.iter(f"{SVG}text"):
        assert 0 <= float(text.get("x", -1)) <= WIDTH
        assert 0 <= float(text.get("y", -1)) <= HEIGHT


@given(st.floats(0, 1e15, allow_nan=False))
def test_ticks_are_round(least: float) -> None:
    step = round_step(least)
    assert step >= least * (1 - 1e-6)
    assert f"{step:e}"[0] in "125"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0])
def test_what_is_no_number_is_not_drawn(value: float) -> None:
    with pytest.raises(ValueError, match="no number"):
        svg(Plot("t", "s", (Panel("p", (Series("s", ((0.0, value),)),)),)))


def test_an_empty_plot_is_an_error() -> None:
    with pytest.raises(ValueError, match="nothing to draw"):
        svg(Plot("t", "s", (Panel("p", (Series("s", ()),)),)))


# -- one relocation ----------------------------------------------------------------------------------------------


def sample(at_s: float, round_: int, left: int, rate: int, dirty: int) -> dict[str, Any]:
    return {
        "at_s": at_s,
        "kind": "sample",
        "round": round_,
        "remaining_bytes": left * MIB,
        "rate_bytes_s": rate * MIB,
        "dirty_rate_bytes_s": dirty * MIB,
    }


def record(**more: Any) -> dict[str, Any]:
    timeline = [
        {"at_s": 100.5, "kind": "phase", "phase": "memory"},
        {"at_s": 100.6, "kind": "round", "round": 1},
        sample(101.0, 1, 400, 90, 0),
        sample(102.0, 1, 300, 100, 0),
        {"at_s": 103.0, "kind": "round", "round": 2},
        sample(103.0, 2, 20, 110, 8),
        {"at_s": 103.5, "kind": "phase", "phase": "switchover"},
        {"at_s": 103.7, "kind": "state", "state": "done"},
    ]
    return {
        "relocation": "r1",
        "role": "source",
        "domain": "web",
        "peer": "hostb",
        "live": True,
        "mark": "done",
        "began_s": 100.0,
        "outcome": {
            "outcome": "completed",
            "duration_s": 3.7,
            "downtime_ms": 80.0,
            "rounds": 3,
            "bytes_sent": MIB,
        },
        "timeline": timeline,
    } | more


def test_a_relocation_has_its_curves_rounds_and_downtime() -> None:
    plot = picture([record()])
    (sent, dirtied), (left,) = (panel.series for panel in plot.panels)
    assert [at_s for at_s, _ in sent.points] == pytest.approx([1.0, 2.0, 3.0])
    assert dirtied.points == ((3.0, 8.0 * MIB),)
    assert [size for _, size in left.points] == [400 * MIB, 300 * MIB, 20 * MIB]
    assert [mark.label for mark in plot.marks] == ["round 1", "2"]
    (band,) = plot.bands
    assert (band.start_s, band.end_s) == (pytest.approx(3.5), pytest.approx(3.58))
    assert "web to hostb, live: completed" in plot.title
    ticks = re.findall(r'class="tick middle"[^>]*>([^<]*)<', svg(plot))
    assert ticks == ["0", "0.5", "1", "1.5", "2", "2.5", "3", "3.5"]


def test_offline_the_blackout_begins_before_the_memory() -> None:
    (band,) = picture([record(live=False)]).bands
    assert band.start_s == pytest.approx(0.5)


def test_a_failure_is_marked_and_the_pause_ends_with_the_timeline() -> None:
    timeline = [
        *record()["timeline"],
        {"at_s": 104.0, "kind": "failure", "code": "unreachable", "text": "gone"},
    ]
    plot = picture([record(timeline=timeline, outcome={"outcome": "failed"})])
    assert [mark.label for mark in plot.marks if mark.bad] == ["failure: unreachable"]
    assert plot.bands[0].end_s == pytest.approx(4.0)


def test_names_stay_in_their_place() -> None:
    name = "</text><script>alert(1)</script>\x1b\u202e&"
    root = ET.fromstring(svg(picture([record(domain=name, peer=name)])))
    assert not list(root.iter(f"{SVG}script"))
    assert any("</text><script>" in (text.text or "") for text in root.iter(f"{SVG}text"))


def test_without_samples_there_is_a_reason() -> None:
    with pytest.raises(UsageError, match="no samples"):
        picture([record(timeline=[])])
    with pytest.raises(UsageError, match="no samples"):
        picture([record(timeline=[sample(101, 0, 0, 0, 0)])])
    with pytest.raises(UsageError, match="give its id"):
        picture([{"relocation": "r1"}, {"relocation": "r2"}])


@given(
    st.dictionaries(
        st.sampled_from(["at_s", "rate_bytes_s", "remaining_bytes"]), st.none() | st.text() | st.floats()
    )
)
def test_odd_samples_do_no_harm(odd: dict[str, Any]) -> None:
    timeline = [sample(101, 1, 1, 1, 1), {**sample(102, 1, 1, 1, 1), **odd}]
    ET.fromstring(svg(picture([record(timeline=timeline)])))


def test_history_plot_writes_the_file(run: Run, server: ControlServer, tmp_path: Path) -> None:
    server.answer("history", {"event": "result", "relocations": [record()]})
    file = tmp_path / "r1.svg"
    done = run("relocctl", "history", "r1", "--plot", str(file))
    assert done.returncode == 0
    assert "domain 'web' to hostb" in done.stdout
    ET.parse(file)
    done = run("relocctl", "history", "r1", "--json", "--plot", str(tmp_path / "again.svg"))
    assert json.loads(done.stdout)[0]["relocation"] == "r1"


@pytest.mark.parametrize(
    ("name", "error"), [("r1.png", "does not end in .svg"), ("none/r1.svg", "Cannot write")]
)
def test_a_file_that_cannot_be_is_an_error(
    run: Run, server: ControlServer, tmp_path: Path, name: str, error: str
) -> None:
    server.answer("history", {"event": "result", "relocations": [record()]})
    done = run("relocctl", "history", "r1", "--plot", str(tmp_path / name))
    assert done.returncode == 2
    assert error in done.stderr
