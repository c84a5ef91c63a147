"""Runs xl and says why it failed. Commands run in threads, several at a time: some take as long as a guest does."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from relocd.drivers.aio import awaited
from relocd.drivers.qemu.process import in_scope
from relocd.errors import DriverError

_THREADS = 8
_PATIENCE_S = 120.0
"""Hot-plug scripts, which xl waits for, are given up by xl itself well before this."""
_LINES_TOLD = 3
#: What xl says beside the reason.
_NOISE = ("Parsing config", "xc: info", "xc: progress", "libxl: warning")


class Xl:
    """The program of this host."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="xl")

    async def run(self, *words: str) -> str:
        """Run ``xl WORDS`` and return what it prints. Raises DriverError with its reason if it fails."""
        return await self._submit(["xl", *words])

    async def run_in_scope(self, unit: str, *words: str) -> str:
        """The same for a command that leaves a process behind, such as a disk's backend: relocd's end spares it."""
        return await self._submit(in_scope(["xl", *words], unit=unit, environment=os.environ))

    def close(self) -> None:
        """Take no more commands; those under way are seen to their end."""
        self._threads.shutdown(wait=False)

    async def _submit(self, argv: Sequence[str]) -> str:
        return await awaited(asyncio.wrap_future(self._threads.submit(_run, argv)))


def _run(argv: Sequence[str]) -> str:
    environment = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"}
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_PATIENCE_S,
            env=environment,
            check=False,
        )
    except FileNotFoundError as error:
        raise DriverError(f"{argv[0]} is not installed", hint="install Debian's package xen-utils") from error
    except subprocess.TimeoutExpired as error:
        raise DriverError(f"xl {_verb(argv)} has not ended after {_PATIENCE_S:g} s") from error
    if done.returncode:
        raise DriverError(f"xl {_verb(argv)} failed: {reason(done.stderr.decode(errors='replace'))}")
    return done.stdout.decode(errors="replace")


def _verb(argv: Sequence[str]) -> str:
    return argv[argv.index("xl") + 1]


def reason(text: str) -> str:
    """The lines of xl's complaint that tell most, in one."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith(_NOISE)]
    return "; ".join(lines[:_LINES_TOLD]) or "it gave no reason"
