"""A scenario as a picture: all contenders on the same axes, each with the run whose total time is its median."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable, Iterable, Sequence

from relocd.cli.plot import Mark, Panel, Plot, Series, Units, svg
from tests.bench.figures import OWN, Figures, Runs
from tests.bench.four import ALONE, GUESTS
from tests.bench.goals import MIB_PER_GIB, Summary, line, middle, summary
from tests.bench.machine import Machine
from tests.bench.report import Result
from tests.bench.scenarios import PRIVATE, Kind, Scenario

Points = tuple[tuple[float, float], ...]

MS: Units = ((1, "ms"),)
SECONDS: Units = ((1, "s"),)
MIB: Units = ((1, "MiB"),)
RATE_WINDOW_S = 0.25
"""Rates are means over this long: single counts, 100 ms apart, would shiver with the machine."""

PANEL_PX, MARGINS_PX = 210, 180
"""Height of a panel with its title, and of all else."""


def picture(result: Result, machine: Machine) -> str:
    """The scenario as an SVG document."""
    marks: Iterable[Mark] = ()
    if result.scenario.kind is Kind.FOUR:
        panels, label = _four(result.runs), "seconds since the first command"
    elif len(result.scenario.loads) > 1:
        panels, label = _sizes(result.runs), "memory of the guest, GiB"
    else:
        panels, label = _contenders(result.runs), "seconds since the command"
        marks = _ends(result.runs)
    return svg(
        Plot(
            title=f"{result.name}: {result.scenario.title}",
            subtitle=_subtitle(result, machine),
            panels=tuple(panels),
            marks=tuple(marks),
            time_label=label,
            height=MARGINS_PX + PANEL_PX * len(panels),
        )
    )


def _subtitle(result: Result, machine: Machine) -> str:
    loads = result.scenario.loads
    guests = "/".join(f"{load.memory_mib}" for load in loads)
    return " · ".join(
        [
            f"{guests} MiB, {loads[-1].fill_mib / loads[-1].memory_mib:.0%} filled",
            f"QEMU {machine.qemu} ({machine.accelerator})",
            f"{machine.cores} cores",
            _which(result.scenario),
        ]
    )


def _which(scenario: Scenario) -> str:
    """Which of the runs is shown."""
    if scenario.runs == 1:
        return "the only run"
    if len(scenario.loads) > 1:
        return f"medians of {scenario.runs} runs"
    return f"{'first' if scenario.kind is Kind.FOUR else 'by time the median one'} of {scenario.runs} runs"


# -- contenders --------------------------------------------------------------------------------------------------


def _contenders(runs: Runs) -> list[Panel]:
    """relocd comes first, so that it has the same colour in all pictures."""
    shown = [(who, middle(rows)) for who, rows in _ordered(runs) if rows]
    return [
        Panel("Throughput", _curves(shown, rate_points, _ending), "/s"),
        Panel("Remaining", _curves(shown, left_points, lambda row: f"{row.wire_bytes / 1e6:.0f} MB sent")),
        Panel("Unanswered", _curves(shown, quiet_points, _blackout, ramps=True), units=MS),
    ]


def _curves(
    shown: Sequence[tuple[str, Figures]],
    points: Callable[[Figures], Points],
    fact: Callable[[Figures], str],
    *,
    ramps: bool = False,
) -> tuple[Series, ...]:
    return tuple(
        Series(f"{who}: {fact(row)}", points(row), number, filled=ramps, dots=not ramps)
        for number, (who, row) in enumerate(shown)
    )


def _ends(runs: Runs) -> Iterable[Mark]:
    for who, rows in runs.items():
        if rows and (row := middle(rows)).completed:
            yield Mark(row.total_s, f"{who}: {row.total_s:.1f} s")


def _ending(row: Figures) -> str:
    return f"{row.total_s:.1f} s" if row.completed else f"given up after {row.total_s:.0f} s"


def _blackout(row: Figures) -> str:
    return "no switchover" if row.blackout_ms is None else f"{row.blackout_ms:.0f} ms"


def rate_points(row: Figures) -> Points:
    """Bytes a second that left the source's uplink."""
    points, first, last = [], 0, len(row.wire) - 1
    for at_s, sent in row.wire:
        while row.wire[min(first + 1, last)][0] <= at_s - RATE_WINDOW_S:
            first += 1
        before_s, before = row.wire[first]
        points.append((at_s, (sent - before) / (at_s - before_s) if at_s > before_s else 0.0))
    return tuple(points)


def left_points(row: Figures, after_s: float = 0.0) -> Points:
    """Bytes left to send."""
    return tuple((after_s + at_s, float(left)) for at_s, left in row.remaining)


def quiet_points(row: Figures, after_s: float = 0.0) -> Points:
    """How long the last echo is ago, in ms: a ramp for each silence that was noted, else nothing."""
    ramps = [
        ((start_s, 0.0), (start_s + long_ms / 1000, long_ms), (start_s + long_ms / 1000, 0.0))
        for start_s, long_ms in row.silences
    ]
    points = [(0.0, 0.0), *itertools.chain.from_iterable(ramps)]
    points.append((max(row.total_s, points[-1][0]), 0.0))
    return tuple((after_s + at_s, long_ms) for at_s, long_ms in points)


# -- sizes, and four guests --------------------------------------------------------------------------------------


def _sizes(runs: Runs) -> list[Panel]:
    times = [
        Series(who, _by_size(rows, "total_s"), number) for number, (who, rows) in enumerate(_ordered(runs))
    ]
    largest_gib = max(gib for gib, _ in times[0].points)
    if fit := line(runs[OWN]):
        points = tuple((gib, max(0.0, fit.start_s + fit.s_per_gib * gib)) for gib in (0.0, largest_gib))
        name = f"straight line: {fit.s_per_gib:.2f} s per GiB, {fit.deviation:.0%} off"
        times.append(Series(name, points, len(times), dots=False))
    memory = (
        Series(f"{OWN}, the worst of a side", _by_size(runs[OWN], "private_mib", max), 0, filled=True),
        Series("limit", ((0.0, PRIVATE.limit), (largest_gib, PRIVATE.limit)), 1, dots=False),
    )
    return [Panel("Total time", tuple(times), units=SECONDS), Panel("Private memory", memory, units=MIB)]


def _ordered(runs: Runs) -> list[tuple[str, Sequence[Figures]]]:
    """relocd first."""
    return sorted(runs.items(), key=lambda item: item[0] != OWN)


def _by_size(rows: Sequence[Figures], name: str, of: Summary = statistics.median) -> Points:
    sizes = sorted({row.memory_mib for row in rows})
    found = ((size, summary([row for row in rows if row.memory_mib == size], name, of)) for size in sizes)
    return tuple((size / MIB_PER_GIB, value) for size, value in found if value is not None)


def _four(runs: Runs) -> list[Panel]:
    """The first run of both."""
    alone, at_once = runs[ALONE][:GUESTS], runs[OWN][:GUESTS]
    starts_s = list(itertools.accumulate((row.total_s for row in alone), initial=0.0))
    together_s = [0.0] * GUESTS
    return [
        Panel("Remaining, one after another", _guests(alone, starts_s, left_points, _ending)),
        Panel("Unanswered", _guests(alone, starts_s, quiet_points, _blackout, ramps=True), units=MS),
        Panel("Remaining, at once", _guests(at_once, together_s, left_points, _ending)),
        Panel("Unanswered", _guests(at_once, together_s, quiet_points, _blackout, ramps=True), units=MS),
    ]


def _guests(
    rows: Sequence[Figures],
    starts_s: Sequence[float],
    points: Callable[[Figures, float], Points],
    fact: Callable[[Figures], str],
    *,
    ramps: bool = False,
) -> tuple[Series, ...]:
    return tuple(
        Series(f"guest {number + 1}: {fact(row)}", points(row, start_s), number, filled=ramps, dots=not ramps)
        for number, (row, start_s) in enumerate(zip(rows, starts_s, strict=False))
    )
