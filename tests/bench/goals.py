"""Medians, ratios, straight lines, and whether a goal is reached. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Sequence

from attrs import frozen

from tests.bench.figures import OWN, Figures, Runs

MIB_PER_GIB = 1024

Measure = Callable[[Runs], float | None]
Summary = Callable[[Iterable[float]], float]


@frozen
class Goal:
    """Something to be reached: what ``measure`` makes of all runs is at most ``limit``."""

    name: str
    measure: Measure
    limit: float

    def judge(self, runs: Runs) -> Verdict:
        """None as value, and neither reached nor missed, where a contender it needs was not there."""
        value = self.measure(runs)
        return Verdict(self.name, value, self.limit, None if value is None else value <= self.limit)


@frozen
class Verdict:
    """A goal, and what became of it."""

    goal: str
    value: float | None
    limit: float
    reached: bool | None


def values(rows: Sequence[Figures], name: str) -> list[float]:
    """One field of all rows that have it."""
    found = (getattr(row, name) for row in rows)
    return [float(value) for value in found if value is not None]


def summary(rows: Sequence[Figures], name: str, of: Summary = statistics.median) -> float | None:
    """The median (or ``of``) of one field; None if no row has it."""
    found = values(rows, name)
    return of(found) if found else None


def least(name: str, who: str = OWN, of: Summary = statistics.median) -> Measure:
    """The median (or ``of``) of one field of one contender, to be as small as can be."""
    return lambda runs: summary(runs.get(who, ()), name, of)


def ratio(name: str, who: str, to: str, of: Summary = statistics.median) -> Measure:
    """The median (or ``of``) of one field of ``who``, as a multiple of that of ``to``."""

    def measure(runs: Runs) -> float | None:
        return quotient(summary(runs.get(who, ()), name, of), summary(runs.get(to, ()), name, of))

    return measure


def quotient(part: float | None, whole: float | None) -> float | None:
    """Their ratio; None where there is none."""
    return part / whole if part is not None and whole else None


@frozen
class Line:
    """``seconds = start_s + s_per_gib * GiB``, and how far the furthest point is off, as a share of its own value."""

    start_s: float
    s_per_gib: float
    deviation: float


def line(rows: Sequence[Figures]) -> Line | None:
    """The straight line (least squares) through the median times of all sizes; None for fewer than three sizes."""
    points = [
        (size / MIB_PER_GIB, statistics.median(row.total_s for row in rows if row.memory_mib == size))
        for size in sorted({row.memory_mib for row in rows})
    ]
    if len(points) < 3:
        return None
    fit = statistics.linear_regression(*zip(*points, strict=True))
    off = max(abs(fit.intercept + fit.slope * gib - total_s) / total_s for gib, total_s in points)
    return Line(fit.intercept, fit.slope, off)


def deviation(runs: Runs) -> float | None:
    """How far relocd's time is from a straight line over the sizes of the guests."""
    fit = line(runs.get(OWN, ()))
    return fit.deviation if fit else None


def middle(rows: Sequence[Figures]) -> Figures:
    """The row whose total time is the median one, the lower one of two. Raises IndexError for no rows."""
    return sorted(rows, key=lambda row: row.total_s)[(len(rows) - 1) // 2]


def covered_s(stretches: Iterable[tuple[float, float]]) -> float:
    """How long at least one of these stretches of time lasted, gaps between them not counted."""
    total_s, until_s = 0.0, -math.inf
    for start_s, end_s in sorted(stretches):
        total_s += max(0.0, end_s - max(start_s, until_s))
        until_s = max(until_s, end_s)
    return total_s
