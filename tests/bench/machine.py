"""On what the figures were measured."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from pathlib import Path

from attrs import frozen

import relocd
from tests.testbed.commands import run
from tests.testbed.image import CHECKOUT
from tests.testbed.rawqemu import accelerator


@frozen
class Machine:
    """Versions, size, and how busy it was when the bench began (the load average over a minute)."""

    relocd: str
    commit: str
    qemu: str
    accelerator: str
    kernel: str
    python: str
    processor: str
    cores: int
    memory_mib: int
    load: float

    @property
    def text(self) -> str:
        """One line for people."""
        return (
            f"relocd {self.relocd} ({self.commit}), QEMU {self.qemu} ({self.accelerator}), Linux {self.kernel}, "
            f"Python {self.python}, {self.cores} cores, {self.memory_mib} MiB, load {self.load:.1f}"
        )


def machine() -> Machine:
    """This one, now."""
    version = re.search(r"version (\S+)", run(["qemu-system-x86_64", "--version"]))
    return Machine(
        relocd=relocd.__version__,
        commit=_commit(),
        qemu=version[1] if version else "",
        accelerator=accelerator(),
        kernel=platform.release(),
        python=platform.python_version(),
        processor=_first("/proc/cpuinfo", "model name"),
        cores=os.cpu_count() or 0,
        memory_mib=int(_first("/proc/meminfo", "MemTotal").split()[0]) // 1024,
        load=os.getloadavg()[0],
    )


def _commit() -> str:
    """Of this checkout; empty where there is none."""
    argv = ["git", "-C", str(CHECKOUT), "describe", "--always", "--dirty"]
    return subprocess.run(argv, capture_output=True, text=True, check=False).stdout.strip()


def _first(path: str, name: str) -> str:
    """The value of the first ``name: value`` in a file of /proc."""
    found = re.search(rf"^{name}\s*:\s*(.*)$", Path(path).read_text(), re.MULTILINE)
    return found[1] if found else ""
