"""Ending processes by their own ids, and telling whether the one that owned something is still there."""

from __future__ import annotations

import os
import select
import signal
import subprocess
from collections.abc import Iterable
from pathlib import Path

GRACE_S = 3.0  # between asking a process to end and ending it


def start_ticks(pid: int) -> int | None:
    """When a process started, in clock ticks since boot (proc(5), stat field 22); None if it has ended."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()  # from the third on: the second may hold anything
    return int(fields[19]) if fields[0] not in "ZX" else None


def stop_child(child: subprocess.Popen[bytes], *, grace_s: float = GRACE_S) -> int:
    """End a child and wait for it: politely, then for good. Returns its exit code (negative: the signal)."""
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(grace_s)
        except subprocess.TimeoutExpired:
            child.kill()
    return child.wait()


def kill_all(pids: Iterable[int], *, wait_s: float = GRACE_S) -> None:
    """Kill processes, which need not be children, and return when they are gone (or ``wait_s`` passed for one)."""
    handles = []
    for pid in pids:
        try:
            handles.append(os.pidfd_open(pid))
        except ProcessLookupError:
            continue
    for handle in handles:
        try:
            signal.pidfd_send_signal(handle, signal.SIGKILL)
            select.select([handle], [], [], wait_s)
        except ProcessLookupError:
            pass  # ended by itself just now
        finally:
            os.close(handle)
