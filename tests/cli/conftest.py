"""Fixtures: a control server, and the installed commands pointed at it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from relocd.cli.client import SOCKET_VARIABLE
from tests.cli.control_server import ControlServer

Run = Callable[..., "subprocess.CompletedProcess[str]"]

BIN = Path(sys.executable).parent


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ControlServer]:
    """A control server, which RELOCD_SOCKET names."""
    path = tmp_path / "control.sock"
    monkeypatch.setenv(SOCKET_VARIABLE, str(path))
    with ControlServer(path) as running:
        yield running


@pytest.fixture
def run() -> Run:
    """Run an installed command (``run("xm", "list")``) and return what it printed."""

    def command(name: str, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [BIN / name, *arguments],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env=os.environ | {"COLUMNS": "80"},
            **({"input": stdin} if stdin is not None else {"stdin": subprocess.DEVNULL}),
        )

    return command
