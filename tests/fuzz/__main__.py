"""python -m tests.fuzz [--seconds N] [TARGET...]: coverage-guided, each target in a process of its own.

Atheris (libFuzzer for Python) does the work; the corpus grows in .cache/fuzz. An input that a target cannot stand is
kept in tests/fuzz/crashes/TARGET, where the tests take it up from then on.

Why Atheris and not HypoFuzz: what is read here is bytes, which libFuzzer changes by the ten thousand a second, with
limits for the time and memory of each input, and without a server or a database to look after. Properties of values
are hypothesis' business, in the tests of each module. Atheris has wheels for the Pythons and the platform that the
testbed needs; the short run in the tests does without it.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
CRASHES = Path(__file__).parent / "crashes"
CORPUS = ROOT / ".cache/fuzz"
INPUT_BYTES_MAX = 1 << 16
#: An input that takes longer is a finding, too [s]: a reactor stands still so long.
SLOW_S = 5
MEMORY_MIB = 2048


def fuzz(name: str, seconds: int) -> None:
    """Fuzz one target in this process; does not return."""
    import atheris

    with atheris.instrument_imports(include=["relocd"]):
        from tests.fuzz.targets import TARGETS
    target = TARGETS[name]
    corpus, crashes = CORPUS / name, CRASHES / name
    for directory in (corpus, crashes):
        directory.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(target.seeds()):
        (corpus / f"seed-{number}").write_bytes(seed)
    words = CORPUS / f"{name}.dict"
    words.write_text("".join(f'"{_escaped(word)}"\n' for word in target.words))
    options = [
        f"-max_total_time={seconds}",
        f"-max_len={INPUT_BYTES_MAX}",
        f"-timeout={SLOW_S}",
        f"-rss_limit_mb={MEMORY_MIB}",
        f"-artifact_prefix={crashes}/",
        *([f"-dict={words}"] if target.words else []),
        "-print_final_stats=1",
        str(corpus),
    ]
    atheris.Setup([name, *options], target.run)
    atheris.Fuzz()


def _escaped(word: bytes) -> str:
    """As libFuzzer's dictionaries have it."""
    return "".join(f"\\x{byte:02x}" for byte in word)


def main(arguments: Sequence[str]) -> int:
    """Fuzz some targets, or all, one after the other; 1 if there was a finding."""
    parser = argparse.ArgumentParser(prog="tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="all if none is named")
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    if chosen.here:
        fuzz(chosen.targets[0], chosen.seconds)
    from tests.fuzz.targets import TARGETS

    failed = []
    for name in chosen.targets or TARGETS:
        print(f"== {name}", flush=True)
        command = [sys.executable, "-m", "tests.fuzz", "--here", "--seconds", str(chosen.seconds), name]
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, errors="replace", check=False
        )
        lines = done.stderr.splitlines() + done.stdout.splitlines()
        if done.returncode:
            failed.append(name)
            print("\n".join(lines[-60:]))
        else:
            print("\n".join(line for line in lines if "stat::" in line or "DONE" in line))
    if failed:
        print(f"findings in: {', '.join(failed)}; the inputs are in {CRASHES.relative_to(ROOT)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
