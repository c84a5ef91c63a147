"""Running other programs, with errors that say what was run and what it answered."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path


class TestbedError(RuntimeError):
    """The testbed itself, not what it tests, does not work: a tool is missing, a command failed, a guest hangs."""

    __test__ = False  # the name makes pytest look into it


def run(
    argv: Sequence[str | Path],
    *,
    text_in: str | None = None,
    cwd: Path | None = None,
    timeout_s: float = 120,
) -> str:
    """Run a command to its end and return what it printed. Raises TestbedError if it fails or takes too long."""
    words = [str(word) for word in argv]
    try:
        done = subprocess.run(
            words, input=text_in, cwd=cwd, timeout=timeout_s, capture_output=True, text=True, check=False
        )
    except FileNotFoundError as error:
        raise TestbedError(f"{words[0]} is not installed; run tests/testbed/install-packages") from error
    except subprocess.TimeoutExpired as error:
        raise TestbedError(f"{' '.join(words)}: no end after {timeout_s} s") from error
    if done.returncode:
        answer = (done.stderr.strip() or done.stdout.strip())[-2000:]
        raise TestbedError(f"{' '.join(words)}: exit code {done.returncode}: {answer}")
    return done.stdout
