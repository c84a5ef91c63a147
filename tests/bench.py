"""``make bench``: QEMU's own migration and relocd in turn, in the same run, on the same shaped link.

Two guests of the same kind, one under plain QEMU, one under relocd. While one moves the other is paused, so that both
have the machine for themselves. Absolute times depend on the machine; the ratios are what counts, and only if nothing
else keeps the processors busy: the load is shown.
"""

from __future__ import annotations

import argparse
import json
import mmap
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from attrs import asdict, evolve, frozen

from tests.certificates import secure
from tests.contenders import Figures, Load, Own, Peer
from tests.scene import Scene
from tests.testbed.network import Shape

PRIVATE_MIB_MAX = 120


@frozen
class Goal:
    """Something to be reached: the value of ``measure`` (of the peer's and of relocd's medians) at most ``limit``."""

    name: str
    measure: Callable[[Figures, Figures], float]
    limit: float


def _ratio(name: str) -> Callable[[Figures, Figures], float]:
    return lambda peer, own: float(getattr(own, name) / max(getattr(peer, name), 1e-9))


def _total(limit: float) -> Goal:
    return Goal("total time, ratio", _ratio("total_s"), limit)


BLACKOUT = Goal("blackout, ms", lambda _, own: own.blackout_ms, 70)
PRIVATE = Goal("private memory, MiB", lambda _, own: own.private_mib, PRIVATE_MIB_MAX)


@frozen
class Scenario:
    """A guest, a link (None: as fast as it goes), how often both move, and what is to be reached."""

    title: str
    load: Load
    link: str | None
    runs: int
    goals: tuple[Goal, ...]


SCENARIOS: Mapping[str, Scenario] = {
    "gigabit": Scenario(
        "1 Gbit/s, 10 MB/s dirtied",
        Load(),
        "1gbit",
        3,
        (
            _total(0.40),
            Goal("bytes, ratio", _ratio("sent_bytes"), 0.30),
            Goal("processor time, ratio", _ratio("cpu_s"), 0.7),
            BLACKOUT,
            PRIVATE,
        ),
    ),
    "busy": Scenario(
        "1 Gbit/s, 200 MB/s dirtied",
        Load(dirty_mb_s=200),
        "1gbit",
        2,
        (Goal("total time, s", lambda _, own: own.total_s, 10), PRIVATE),
    ),
    "unshaped": Scenario("no limit, 10 MB/s dirtied", Load(), None, 4, (_total(1.0), BLACKOUT, PRIVATE)),
    "dense": Scenario(
        "1 Gbit/s, incompressible", Load(content="random"), "1gbit", 3, (_total(1.03), BLACKOUT, PRIVATE)
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the scenarios; 0 if every relocation completed and no page was damaged, whatever the figures are."""
    arguments = _parser().parse_args(argv)
    results, sound = {}, True
    for name in arguments.scenario or SCENARIOS:
        scenario = _adapted(SCENARIOS[name], arguments)
        print(f"{name}: {scenario.title}; {scenario.load}", flush=True)
        with tempfile.TemporaryDirectory() as directory:
            figures, bad = compare(scenario, secure(Path(directory)) if arguments.tls else None)
        reached = report(scenario, figures)
        sound = sound and not bad and all(row.completed for row in figures[Own.name])
        if bad:
            print(f"FAILED: {bad} bad pages in the guests")
        results[name] = {
            "load": asdict(scenario.load),
            "link": scenario.link,
            "goals": reached,
            "runs": {who: [asdict(row) for row in rows] for who, rows in figures.items()},
        }
        if arguments.json:
            arguments.json.write_text(json.dumps(results, indent=2))
    return 0 if sound else 1


def compare(
    scenario: Scenario, settings: Mapping[str, str | int] | None = None
) -> tuple[dict[str, list[Figures]], int]:
    """All runs, and the number of bad pages that the guests found. ``settings`` are those of relocd."""
    figures: dict[str, list[Figures]] = {Peer.name: [], Own.name: []}
    with Scene(settings=settings) as scene, Peer(scene, scenario.load) as peer:
        peer.wait_filled()
        peer.pause()
        own = Own(scene, scenario.load)
        own.wait_filled()
        own.pause()
        if scenario.link:
            scene.network.shape(Shape(rate=scenario.link))
        for number in range(scenario.runs):
            for guest in (peer, own):
                if guest is peer and figures[Peer.name] and not figures[Peer.name][-1].completed:
                    continue  # it would not the next time either
                guest.unpause()
                warm(scenario.load.memory_mib)
                row = guest.move()
                figures[guest.name].append(row)
                print(
                    f"  run {number + 1}: {guest.name:9} {row.total_s:6.2f} s, load {row.load:.1f}",
                    flush=True,
                )
                if guest is own:
                    bad = own.stat().bad
                guest.pause()
        peer.unpause()
        bad += peer.stat().bad
    return figures, bad


def warm(memory_mib: int) -> None:
    """Touch as much memory as an arriving guest can take, and let it go.

    A virtual machine gives memory that it does not use back to its host (free page reporting); to get it again costs
    it up to 3 s a GiB, here a lottery between the one who comes first and the other.
    """
    with mmap.mmap(-1, memory_mib << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        memory.madvise(mmap.MADV_HUGEPAGE)
        for page in range(0, memory_mib << 20, mmap.PAGESIZE):
            memory[page] = 1


_COLUMNS: Sequence[tuple[str, str, float, int]] = (
    ("total s", "total_s", 1, 2),
    ("MB on wire", "sent_bytes", 1e6, 0),
    ("CPU s", "cpu_s", 1, 1),
    ("downtime ms", "downtime_ms", 1, 0),
    ("blackout ms", "blackout_ms", 1, 0),
    ("longest gap", "gap_ms", 1, 0),
    ("rounds", "rounds", 1, 0),
    ("private MiB", "private_mib", 1, 0),
    ("load", "load", 1, 1),
)


def report(scenario: Scenario, figures: dict[str, list[Figures]]) -> dict[str, dict[str, float | bool]]:
    """Print medians, ratios and whether the goals are reached; return the latter."""
    peer, own = (_median(figures[name]) for name in (Peer.name, Own.name))
    print(f"\n{'median of':12}" + "".join(f"{head:>13}" for head, *_ in _COLUMNS))
    for name, row in ((Peer.name, peer), (Own.name, own)):
        cells = [f"{getattr(row, field) / unit:13.{digits}f}" for _, field, unit, digits in _COLUMNS]
        print(f"{name:12}" + "".join(cells) + ("" if row.completed else "  given up"))
    cells = [
        f"{_ratio(field)(peer, own):13.2f}" if getattr(peer, field) else f"{'':13}"
        for _, field, *_ in _COLUMNS
    ]
    print(f"{'ratio':12}" + "".join(cells))
    pairs = zip(figures[Peer.name], figures[Own.name], strict=False)
    print(
        "total time, pair by pair: " + ", ".join(f"{own.total_s / peer.total_s:.2f}" for peer, own in pairs)
    )
    reached: dict[str, dict[str, float | bool]] = {}
    for goal in scenario.goals:
        value = goal.measure(peer, own)
        reached[goal.name] = {"value": value, "limit": goal.limit, "reached": value <= goal.limit}
        print(
            f"  {goal.name}: {value:.2f}, {'reached' if value <= goal.limit else 'MISSED'} (limit {goal.limit:g})"
        )
    print(flush=True)
    return reached


def _median(rows: Sequence[Figures]) -> Figures:
    middle = {field: statistics.median(getattr(row, field) for row in rows) for _, field, *_ in _COLUMNS}
    return evolve(rows[0], completed=all(row.completed for row in rows), **middle)


def _adapted(scenario: Scenario, arguments: argparse.Namespace) -> Scenario:
    load = evolve(scenario.load, memory_mib=arguments.memory) if arguments.memory else scenario.load
    return evolve(scenario, load=load, runs=arguments.runs or scenario.runs)


def _parser() -> argparse.ArgumentParser:
    parse = argparse.ArgumentParser(prog="make bench", description=__doc__.split("\n")[0])
    parse.add_argument(
        "--scenario", action="append", choices=SCENARIOS, help="only this one; may be repeated"
    )
    parse.add_argument(
        "--runs", type=int, help="moves of each, in turn, instead of the scenario's own number"
    )
    parse.add_argument("--tls", action="store_true", help="relocd's hosts have certificates and require TLS")
    parse.add_argument("--memory", type=int, help="of the guest, MiB (default 2048)")
    parse.add_argument("--json", type=Path, help="also write every figure here")
    return parse


if __name__ == "__main__":
    sys.exit(main())
