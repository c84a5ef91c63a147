"""What ``make bench`` tells: a table for people, an object for programs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from attrs import asdict, frozen

from tests.bench.figures import OWN, Figures, Runs
from tests.bench.goals import Line, Verdict, line, quotient, summary
from tests.bench.scenarios import Scenario

FORMAT = 1
"""Of the JSON file; grows when a field changes its meaning."""


@frozen
class Column:
    """One figure in the table: shown divided by ``unit``, with so many digits."""

    head: str
    name: str
    unit: float = 1
    digits: int = 0


COLUMNS = (
    Column("total s", "total_s", digits=2),
    Column("MB on wire", "wire_bytes", 1e6),
    Column("CPU s", "cpu_s", digits=1),
    Column("downtime ms", "downtime_ms"),
    Column("blackout ms", "blackout_ms"),
    Column("longest gap", "gap_ms"),
    Column("rounds", "rounds"),
    Column("private MiB", "private_mib"),
    Column("load", "load", digits=1),
)


@frozen
class Result:
    """A scenario that was run. ``bad_pages`` is what the guests found damaged in their memory."""

    name: str
    scenario: Scenario
    runs: Runs
    bad_pages: int
    verdicts: tuple[Verdict, ...]

    @classmethod
    def of(cls, name: str, scenario: Scenario, runs: Runs, bad_pages: int) -> Result:
        """With its goals judged."""
        return cls(name, scenario, runs, bad_pages, tuple(goal.judge(runs) for goal in scenario.goals))

    @property
    def sound(self) -> bool:
        """All relocations completed and no guest found a bad page, whatever the figures are."""
        return not self.bad_pages and all(row.completed for row in self.runs[OWN])

    @property
    def line(self) -> Line | None:
        """How relocd's time grows with the guest, where there were several sizes."""
        return line(self.runs[OWN])


def run_text(number: int, who: str, row: Figures) -> str:
    """One line for a move that has just ended."""
    blackout = "" if row.blackout_ms is None else f", blackout {row.blackout_ms:.0f} ms"
    load = "" if row.load is None else f", load {row.load:.1f}"
    ending = "" if row.completed else ", given up"
    return f"  run {number + 1}: {row.memory_mib} MiB, {who:18} {row.total_s:6.2f} s{blackout}{load}{ending}"


def report(result: Result) -> Iterable[str]:
    """Medians, ratios, and whether the goals are reached."""
    sizes = sorted({row.memory_mib for rows in result.runs.values() for row in rows})
    yield f"{'median of':24}" + "".join(f"{column.head:>13}" for column in COLUMNS)
    for size in sizes:
        groups = {
            who: chosen
            for who, rows in result.runs.items()
            if (chosen := [row for row in rows if row.memory_mib == size])
        }
        for who, rows in groups.items():
            yield _row(who if len(sizes) == 1 else f"{who}, {size} MiB", rows)
        beside = result.scenario.beside
        if {beside, OWN} <= groups.keys():
            yield _ratios(beside, groups[beside], groups[OWN])
    yield from _pairs(result)
    if result.line:
        yield (
            f"time: {result.line.start_s:.2f} s and {result.line.s_per_gib:.2f} s per GiB of the guest, "
            f"no size more than {result.line.deviation:.0%} off"
        )
    for verdict in result.verdicts:
        yield _verdict(verdict)
    if result.bad_pages:
        yield f"FAILED: {result.bad_pages} bad pages in the guests"


def result_object(result: Result) -> dict[str, Any]:
    """Everything, for the JSON file of docs/bench.md."""
    scenario = result.scenario
    return {
        "title": scenario.title,
        "link": scenario.link,
        "loads": [asdict(load) for load in scenario.loads],
        "goals": [asdict(verdict) for verdict in result.verdicts],
        "line": asdict(result.line) if result.line else None,
        "bad_pages": result.bad_pages,
        "medians": {who: _medians(rows) for who, rows in result.runs.items()},
        "runs": {who: [asdict(row) for row in rows] for who, rows in result.runs.items()},
    }


def _medians(rows: Sequence[Figures]) -> Mapping[str, float | None]:
    return {column.name: summary(rows, column.name) for column in COLUMNS}


def _row(who: str, rows: Sequence[Figures]) -> str:
    cells = (_cell(summary(rows, column.name), column) for column in COLUMNS)
    return f"{who:24}" + "".join(cells) + ("" if all(row.completed for row in rows) else "  given up")


def _cell(value: float | None, column: Column) -> str:
    return f"{'-':>13}" if value is None else f"{value / column.unit:13.{column.digits}f}"


def _ratios(beside: str, peer: Sequence[Figures], own: Sequence[Figures]) -> str:
    cells = []
    for column in COLUMNS:
        value = quotient(summary(own, column.name), summary(peer, column.name))
        cells.append(f"{'-':>13}" if value is None else f"{value:13.2f}")
    return f"{f'{OWN} to {beside}':24}" + "".join(cells)


def _pairs(result: Result) -> Iterable[str]:
    pairs = list(zip(result.runs.get(result.scenario.beside, ()), result.runs[OWN], strict=False))
    if pairs:
        ratios = ", ".join(f"{own.total_s / peer.total_s:.2f}" for peer, own in pairs)
        yield f"total time, pair by pair: {ratios}"


def _verdict(verdict: Verdict) -> str:
    if verdict.value is None:
        return f"  {verdict.goal}: not judged, its contender was not there (limit {verdict.limit:g})"
    ending = "reached" if verdict.reached else "MISSED"
    return f"  {verdict.goal}: {verdict.value:.2f}, {ending} (limit {verdict.limit:g})"
