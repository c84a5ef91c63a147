"""Whether this process has left something open."""

from __future__ import annotations

import os
import time
from pathlib import Path

_CLOSED_S = 10.0


def open_descriptors() -> int:
    """How many there are, those of all threads."""
    return len(list(Path("/proc/self/fd").iterdir()))


def closed_again(before: int) -> bool:
    """Whether no more are open than before. Threads have something open for a moment; what is left stays open."""
    until_s = time.monotonic() + _CLOSED_S
    while open_descriptors() > before:
        if time.monotonic() > until_s:
            return False
        os.sched_yield()
    return True
