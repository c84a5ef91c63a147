"""What processes and their children use of the machine meanwhile: processor time, private memory."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_POLL_S = 0.025
_SEARCH_EVERY = 10
_KIB_PER_MIB = 1024


class Usage:
    """A context manager. ``sides`` are the processes to look at, children included, grouped by host.

    ``cpu_s`` is what all of them used; ``private_mib`` the most memory that those of one side which are no
    hypervisor held at the same time, without what they share with others. Looked at some 40 times a second, so the
    last moments of a process that ends are missed. Carriers count as a whole, since one may wait for its relocation.
    """

    def __init__(self, sides: Iterable[Iterable[int]]) -> None:
        self._roots = [set(side) for side in sides]
        self._known = [set(side) for side in self._roots]
        self._before: dict[int, float] = {}
        self._last: dict[int, float] = {}
        self._names: dict[int, str] = {}
        self._private_kib = 0
        self._loads: list[float] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    @property
    def cpu_s(self) -> float:
        """Seconds of processor time, user and system."""
        return sum(self.cpu_by_name().values())

    @property
    def private_mib(self) -> float:
        """MiB."""
        return self._private_kib / _KIB_PER_MIB

    @property
    def load(self) -> float:
        """Processes that were running or ready to run, on average: far above what is measured means that the
        processors were busy with something else."""
        return sum(self._loads) / max(len(self._loads), 1)

    def cpu_by_name(self) -> dict[str, float]:
        """The same, apart: ``qemu-system-x86_64`` and so on, with the number of the side."""
        found: dict[str, float] = {}
        for pid, used in self._last.items():
            side = next(number for number, known in enumerate(self._known) if pid in known)
            name = f"{self._names[pid]}.{side}"
            found[name] = found.get(name, 0.0) + used - self._before.get(pid, 0.0)
        return found

    def __enter__(self) -> Usage:
        self._search(_processes())
        self._look()
        self._before = {pid: used for pid, used in self._last.items() if self._lasts(pid)}
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._look()

    def _run(self) -> None:
        turn = 0
        while not self._stop.wait(_POLL_S):
            turn += 1
            if turn % _SEARCH_EVERY == 0:
                self._search(_processes())
                self._loads.append(_running())
                self._private_kib = max(self._private_kib, *map(self._weigh, self._known))
            self._look()

    def _search(self, parents: dict[int, int]) -> None:
        for known in self._known:
            grown = True
            while grown:
                more = {pid for pid, parent in parents.items() if parent in known} - known
                known |= more
                grown = bool(more)

    def _look(self) -> None:
        for pid in set().union(*self._known):
            fields = _stat(pid)
            if fields:
                self._names.setdefault(pid, fields[0])
                self._last[pid] = (int(fields[12]) + int(fields[13])) / _TICKS_PER_S

    def _lasts(self, pid: int) -> bool:
        """Whether it would be there without what is measured. A carrier that was started beforehand would not."""
        return any(pid in root for root in self._roots) or self._is_hypervisor(pid)

    def _is_hypervisor(self, pid: int) -> bool:
        return self._names.get(pid, "").startswith("qemu")

    def _weigh(self, pids: set[int]) -> int:
        return sum(_private_kib(pid) for pid in pids if not self._is_hypervisor(pid))


def _processes() -> dict[int, int]:
    """Every process and its parent."""
    found = {}
    for entry in os.listdir("/proc"):  # noqa: PTH208 - often, and pathlib is slow
        if entry.isdigit() and (fields := _stat(int(entry))):
            found[int(entry)] = int(fields[2])
    return found


def _running() -> float:
    """procs_running of proc_stat(5), without the one that asks."""
    (line,) = [
        line for line in Path("/proc/stat").read_text().splitlines() if line.startswith("procs_running")
    ]
    return float(line.split()[1]) - 1


def _stat(pid: int) -> list[str]:
    """proc_pid_stat(5): the name, then the fields from the third on; empty if the process is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return []
    head, _, tail = text.rpartition(")")
    return [head.partition("(")[2], *tail.split()]


def _private_kib(pid: int) -> int:
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("Private_"))
