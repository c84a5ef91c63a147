"""What a command loads before it does anything: it is run by hand and in loops, and is over in no time."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = (
    "rich",
    "xml",
    "http",
    "asyncio",
    "twisted",
    "numpy",
    "relocd.cli.plot",
    "relocd.cli.bar",
    "relocd.daemon",
)


@pytest.mark.parametrize("module", ["relocd.cli.relocctl", "relocd.cli.xm"])
def test_a_command_loads_only_what_all_commands_need(module: str) -> None:
    code = f"import sys, {module}; print(*sorted(set(sys.modules) & set({HEAVY!r})))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.split() == []
