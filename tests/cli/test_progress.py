"""Progress as plain lines and as JSON; the bar is tested on a real terminal (test_terminal.py)."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from relocd.cli.bar import BarView
from relocd.cli.progress import JsonView, LineView, view_for
from tests.cli.control_server import Json, progress


def _lines(events: Iterable[tuple[float, Json]]) -> list[str]:
    """What a LineView prints for events at given seconds."""
    stream = io.StringIO()
    moments = [moment for moment, _ in events]
    with LineView("web to hostb", stream, clock=iter(moments).__next__) as view:
        for _, event in events:
            view.update(event)
    return stream.getvalue().splitlines()


def test_a_line_for_each_phase_and_round() -> None:
    assert _lines(
        [
            (0.0, progress("connect", 0, 0, rate_bytes_s=0, remaining_bytes=0)),
            (2.0, progress("memory", 1, 10)),
            (3.0, progress("memory", 1, 30)),
            (5.0, progress("memory", 2, 90)),
            (9.0, progress("switchover", 3, 99, remaining_bytes=0)),
        ]
    ) == [
        "web to hostb: connecting (0%)",
        "web to hostb: memory, round 1 (10%, 110.0 MiB/s, 460.8 MiB left, ETA 9.0 s)",
        "web to hostb: memory, round 2 (90%, 110.0 MiB/s, 51.2 MiB left, ETA 1.0 s)",
        "web to hostb: switchover (99%, 110.0 MiB/s, ETA 0.1 s)",
    ]


def test_no_more_than_a_line_a_second_and_the_step_is_caught_up() -> None:
    steps = [(0.1 * n, progress("memory", n, n)) for n in range(1, 26)]
    shown = [line.split("(")[0] for line in _lines(steps)]
    assert shown == [f"web to hostb: memory, round {n} " for n in (1, 11, 21)]


def test_a_verdict_that_changes_something_is_told_once_and_at_once() -> None:
    limited = {
        "verdict": "raise-downtime",
        "downtime_limit_ms": 40,
        "verdict_text": "the pause may last 40 ms",
    }
    lines = _lines(
        [
            (0.0, progress("memory", 1, 10, verdict="continue", verdict_text="fine")),
            (0.1, progress("memory", 1, 10, **limited)),
            (0.2, progress("memory", 1, 10, **limited)),
        ]
    )
    assert [line for line in lines if "%" not in line] == ["web to hostb: the pause may last 40 ms"]


@given(
    st.lists(
        st.fixed_dictionaries(
            {},
            optional={
                key: st.one_of(st.integers(), st.floats(), st.none(), st.text())
                for key in ("percent", "round", "elapsed_s", "rate_bytes_s")
            },
        )
    )
)
def test_odd_numbers_never_end_it(events: list[Json]) -> None:
    _lines([(float(n), {"phase": "memory", **event}) for n, event in enumerate(events)])


def test_percent_never_runs_backwards() -> None:
    steps = [(2.0 * n, progress("memory", n + 1, percent)) for n, percent in enumerate((10, 60, 40, 120, 70))]
    assert [line.split("(")[1].split("%")[0] for line in _lines(steps)] == ["10", "60", "60", "100", "100"]


def test_json_is_a_line_for_every_event() -> None:
    stream = io.StringIO()
    events = [progress("memory", 1, 10), progress("memory", 1, 11)]
    with JsonView(stream) as view:
        for event in events:
            view.update(event)
    assert [json.loads(line) for line in stream.getvalue().splitlines()] == events


def test_a_terminal_gets_a_bar_and_anything_else_lines() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    assert isinstance(view_for("web", "hostb", io.StringIO()), LineView)
    assert isinstance(view_for("web", "hostb", Terminal()), BarView)
