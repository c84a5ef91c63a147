"""Two daemons in this process: one with the domain, one with room."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from relocd.drivers.memory import forget_hosts
from tests.daemon.rig import DOMAIN_FILE, Daemon


@pytest.fixture
def directory() -> Iterator[Path]:
    """Short, as the run directories of real hosts are."""
    with tempfile.TemporaryDirectory(prefix="relocd-") as name:
        yield Path(name)


@pytest.fixture
def source(directory: Path) -> Iterator[Daemon]:
    """A daemon with the domain."""
    daemon = Daemon(directory / "source", switchover_timeout_s=10.0)
    daemon.client.call("create", config=DOMAIN_FILE, source="web.cfg")
    yield daemon
    daemon.stop()
    forget_hosts()


@pytest.fixture
def target(directory: Path) -> Iterator[Daemon]:
    """A daemon with room."""
    daemon = Daemon(directory / "target")
    yield daemon
    daemon.stop()
