"""The command line of ``make bench``."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from attrs import asdict, evolve

from tests.bench.compare import compare
from tests.bench.encrypted import encrypted
from tests.bench.figures import Figures, Load
from tests.bench.four import four
from tests.bench.machine import Machine, machine
from tests.bench.peer import METHODS
from tests.bench.plot import picture
from tests.bench.report import FORMAT, Result, report, result_object, run_text
from tests.bench.scenarios import SCENARIOS, USUAL, Kind, Scenario
from tests.bench.xen import beside_xl

MEMORY_MIN_MIB = 192


def main(argv: Sequence[str] | None = None) -> int:
    """Run the scenarios; 0 if every relocation completed and no page was damaged, whatever the figures are."""
    arguments = _parser().parse_args(argv)
    here = machine()
    print(here.text)
    results = []
    for name in arguments.scenario or USUAL:
        scenario = _adapted(SCENARIOS[name], arguments)
        print(f"\n{name}: {scenario.title}", flush=True)
        results.append(_run(name, scenario, tls=arguments.tls))
        print(*report(results[-1]), sep="\n", flush=True)
        _write(arguments, here, results)
    return 0 if all(result.sound for result in results) else 1


def _run(name: str, scenario: Scenario, *, tls: bool) -> Result:
    """Guests of all sizes, one after the other."""
    runs: dict[str, list[Figures]] = {}
    bad_pages = 0
    for load in scenario.loads:
        if scenario.kind is Kind.FOUR:
            found, bad = four(load, scenario.link, scenario.runs, _tell)
        elif scenario.kind is Kind.ENCRYPTED:
            found, bad = encrypted(load, scenario.link, scenario.runs, _tell)
        elif scenario.kind is Kind.XEN:
            found, bad = beside_xl(load, scenario.runs, _tell)
        else:
            methods = [METHODS[peer] for peer in scenario.peers]
            found, bad = compare(load, scenario.link, scenario.runs, methods, _tell, tls=tls)
        bad_pages += bad
        for who, rows in found.items():
            runs.setdefault(who, []).extend(rows)
    return Result.of(name, scenario, runs, bad_pages)


def _tell(number: int, who: str, row: Figures) -> None:
    print(run_text(number, who, row), flush=True)


def _write(arguments: argparse.Namespace, here: Machine, results: Sequence[Result]) -> None:
    """After each scenario, so that one that fails takes nothing with it."""
    if arguments.json:
        told: dict[str, Any] = {"format": FORMAT, "machine": asdict(here)}
        told["scenarios"] = {result.name: result_object(result) for result in results}
        arguments.json.write_text(json.dumps(told, indent=1))
    if arguments.plot_dir:
        arguments.plot_dir.mkdir(parents=True, exist_ok=True)
        last = results[-1]
        (arguments.plot_dir / f"{last.name}.svg").write_text(picture(last, here))


def _adapted(scenario: Scenario, arguments: argparse.Namespace) -> Scenario:
    """To what was asked for."""
    largest = max(load.memory_mib for load in scenario.loads)
    loads = scenario.loads
    if arguments.memory:
        loads = tuple(_scaled(load, arguments.memory / largest) for load in loads)
    peers = (
        tuple(dict.fromkeys(arguments.peer))
        if arguments.peer and scenario.kind is Kind.PAIRS
        else scenario.peers
    )
    return evolve(scenario, loads=loads, runs=arguments.runs or scenario.runs, peers=peers)


def _scaled(load: Load, factor: float) -> Load:
    """A smaller or larger guest of the same kind. Exits if it would be too small to boot."""
    sizes = {
        name: round(getattr(load, name) * factor) for name in ("memory_mib", "fill_mib", "working_set_mib")
    }
    if sizes["memory_mib"] < MEMORY_MIN_MIB:
        sys.exit(
            f"{sizes['memory_mib']} MiB are too few for a guest, {MEMORY_MIN_MIB} the least: give more --memory"
        )
    return evolve(load, **sizes)


def _parser() -> argparse.ArgumentParser:
    parse = argparse.ArgumentParser(
        prog="python -m tests.bench",
        description="relocd beside QEMU's own migration, in turn; see docs/bench.md",
    )
    add = parse.add_argument
    add("--scenario", action="append", choices=SCENARIOS, help="only this one; may be repeated (all but xen)")
    add("--peer", action="append", choices=METHODS, help="only this of QEMU's methods; may be repeated")
    add("--runs", type=_positive, help="moves of each, in turn, instead of the scenario's own number")
    add("--tls", action="store_true", help="relocd's hosts require TLS (not in four, tls and xen)")
    add("--memory", type=_positive, help="of the scenario's largest guest, MiB; all else in proportion")
    add("--json", type=Path, metavar="FILE", help="write every figure here")
    add("--plot-dir", type=Path, metavar="DIRECTORY", help="draw each scenario into a file of its name here")
    return parse


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


if __name__ == "__main__":
    sys.exit(main())
