"""A scenario as a picture: all contenders on the same axes, each with the run whose total time is its median."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable, Iterable, Sequence

from relocd.cli.plot import Mark, Panel, Plot, Series, Units, svg
from tests.bench.figures import OWN, Figures, Runs, Sample
from tests.bench.four import ALONE, GUESTS
from tests.bench.goals import MIB_PER_GIB, Summary, line, middle, summary
from tests.bench.machine import Machine
from tests.bench.report import Result
from tests.bench.scenarios import Kind

Points = tuple[tuple[float, float], ...]

MS: Units = ((1, "ms"),)
SECONDS: Units = ((1, "s"),)
MIB: Units = ((1, "MiB"),)
RATE_WINDOW_S = 0.5
"""Rates are means over this long, for all in the same way: what relocd's own samples are apart."""

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
    load = max(result.scenario.loads, key=lambda load: load.memory_mib)
    return " · ".join(
        [
            f"{load.memory_mib} MiB, {load.fill_mib} filled",
            f"QEMU {machine.qemu} ({machine.accelerator})",
            f"{machine.cores} cores",
            f"shown: the run of median time of {result.scenario.runs}",
        ]
    )


# -- contenders --------------------------------------------------------------------------------------------------


def _contenders(runs: Runs) -> list[Panel]:
    """relocd has the first colour, as in all pictures; it is drawn last, so that nothing hides it."""
    shown = [(who, middle(rows)) for who, rows in runs.items() if rows and who != OWN]
    shown.append((OWN, middle(runs[OWN])))
    rates, lefts, quiets = [], [], []
    for number, (who, row) in enumerate(shown, 1):
        colour = number % len(shown)
        rates.append(Series(f"{who}, {_ending(row)}", rate_points(row.samples), colour))
        lefts.append(Series(f"{who}, {row.sent_bytes / 1e6:.0f} MB sent", left_points(row.samples), colour))
        quiets.append(Series(f"{who}, {_blackout(row)}", quiet_points(row), colour, filled=True))
    return [
        Panel("Throughput", tuple(rates), "/s"),
        Panel("Remaining", tuple(lefts)),
        Panel("Time without an answer", tuple(quiets), units=MS),
    ]


def _ends(runs: Runs) -> Iterable[Mark]:
    for who, rows in runs.items():
        if rows and (row := middle(rows)).completed:
            yield Mark(row.total_s, f"{who}: {row.total_s:.1f} s")


def _ending(row: Figures) -> str:
    return f"{row.total_s:.1f} s" if row.completed else f"given up after {row.total_s:.0f} s"


def _blackout(row: Figures) -> str:
    return "no switchover" if row.blackout_ms is None else f"blackout {row.blackout_ms:.0f} ms"


def rate_points(samples: Sequence[Sample]) -> Points:
    """Bytes a second, over the half second before each sample."""
    known = [Sample(0.0, 0, 0), *samples]
    points = [(0.0, 0.0)]
    first = 0
    for sample in samples:
        while known[first + 1].at_s < sample.at_s - RATE_WINDOW_S:
            first += 1
        span_s = sample.at_s - known[first].at_s
        if span_s > 0:
            points.append((sample.at_s, max(0, sample.sent_bytes - known[first].sent_bytes) / span_s))
    return tuple(points)


def left_points(samples: Sequence[Sample], after_s: float = 0.0) -> Points:
    """Bytes left to send."""
    return tuple((after_s + sample.at_s, float(sample.remaining_bytes)) for sample in samples)


def quiet_points(row: Figures, after_s: float = 0.0) -> Points:
    """How long the last echo is ago, in ms: a ramp for each silence that was noted, else nothing."""
    ramps = [
        ((start_s, 0.0), (start_s + long_ms / 1000, long_ms), (start_s + long_ms / 1000, 0.0))
        for start_s, long_ms in row.silences
    ]
    points = [(0.0, 0.0), *itertools.chain.from_iterable(ramps), (row.total_s, 0.0)]
    return tuple((after_s + at_s, long_ms) for at_s, long_ms in sorted(points, key=lambda point: point[0]))


# -- sizes, and four guests --------------------------------------------------------------------------------------


def _sizes(runs: Runs) -> list[Panel]:
    times = [Series(who, _by_size(rows, "total_s"), number) for number, (who, rows) in _ordered(runs)]
    if fit := line(runs[OWN]):
        ends = (min(times[0].points), max(times[0].points))
        points = tuple((gib, max(0.0, fit.start_s + fit.s_per_gib * gib)) for gib, _ in ends)
        name = f"straight line, {fit.s_per_gib:.2f} s per GiB, {fit.deviation:.0%} off"
        times.append(Series(name, points, len(times)))
    memory = Series(f"{OWN}, a side, worst", _by_size(runs[OWN], "private_mib", max), 0, filled=True)
    return [Panel("Total time", tuple(times), units=SECONDS), Panel("Private memory", (memory,), units=MIB)]


def _ordered(runs: Runs) -> Iterable[tuple[int, tuple[str, Sequence[Figures]]]]:
    """relocd first."""
    return enumerate(sorted(runs.items(), key=lambda item: item[0] != OWN))


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
        Panel("Remaining, one after another", _guests(alone, starts_s, _left)),
        Panel("Time without an answer", _guests(alone, starts_s, quiet_points), units=MS),
        Panel("Remaining, at once", _guests(at_once, together_s, _left)),
        Panel("Time without an answer", _guests(at_once, together_s, quiet_points), units=MS),
    ]


def _left(row: Figures, after_s: float) -> Points:
    return left_points(row.samples, after_s)


def _guests(
    rows: Sequence[Figures], starts_s: Sequence[float], points: Callable[[Figures, float], Points]
) -> tuple[Series, ...]:
    return tuple(
        Series(f"guest {number + 1}, {_blackout(row)}", points(row, start_s), number, filled=True)
        for number, (row, start_s) in enumerate(zip(rows, starts_s, strict=False))
    )
