"""What leaves a host meanwhile, as its uplink counts it: the same for whoever moves a guest, headers included.

A mover's own count will not do: that of QEMU's compressed multifd is of the memory before it is compressed.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path
from types import TracebackType

from tests.testbed.network import UPLINK

PERIOD_S = 0.1
_RECEIVED_FIELD, _SENT_FIELD = 0, 8


class Wire:
    """A context manager. ``pid`` is a process in the namespace of the device, and outlives it; times are those of
    ``time.monotonic()``.

    The device is the host's uplink, or with ``tap`` the other end of the cable: what that has received, a host sent
    which is a machine of its own.
    """

    def __init__(self, pid: int, *, tap: str = "") -> None:
        self._counters = Path(f"/proc/{pid}/net/dev")
        self._what = (tap, _RECEIVED_FIELD) if tap else (UPLINK, _SENT_FIELD)
        self._counted: list[tuple[float, int]] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    @property
    def total_bytes(self) -> int:
        """From beginning to end."""
        return self._counted[-1][1] - self._counted[0][1]

    def since(self, began_s: float) -> tuple[tuple[float, int], ...]:
        """Seconds since ``began_s`` and bytes sent until then, every 100 ms."""
        first = self._counted[0][1]
        return tuple((max(0.0, at_s - began_s), sent - first) for at_s, sent in self._counted)

    def __enter__(self) -> Wire:
        self._count()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._count()

    def _run(self) -> None:
        while not self._stop.wait(PERIOD_S):
            self._count()

    def _count(self) -> None:
        self._counted.append((time.monotonic(), counted_bytes(self._counters.read_text(), *self._what)))


def counted_bytes(counters: str, device: str, column: int) -> int:
    """A counter of one device, in the text of /proc/net/dev (proc(5)). Raises ValueError if it is not there."""
    for line in counters.splitlines():
        name, _, fields = line.partition(":")
        if name.strip() == device:
            return int(fields.split()[column])
    raise ValueError(f"no {device} in {counters!r}")
