"""Our ends of an outgoing domain's channels, which QEMU itself keeps open.

QEMU 7.2 does not survive a channel that breaks while it switches over: its migration thread waits for a thread that
has ended by then, holding the lock that all else needs, the guest included, and nothing wakes it up. So nothing
may ever break one. The carrier and the daemon can be killed, both at once, and the kernel closes their descriptors.
Therefore QEMU is given duplicates of our ends, which it does nothing with: as long as it lives somebody holds them.
What is given up is ended through the main stream, and all that QEMU still writes into the channels is dropped.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import socket
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from relocd.drivers.qemu.qmp import Monitor

_SYS_PIDFD_GETFD: Final = 438
"""The same on every architecture (pidfd_getfd(2)); needs the rights of a debugger, as direct placement does."""
_PIECE_BYTES: Final = 1 << 20


async def hold(monitor: Monitor, ends: Sequence[socket.socket]) -> None:
    """Have QEMU keep duplicates. Those of an earlier migration, which have the same names, are closed by that."""
    for number, end in enumerate(ends):
        await monitor.send_descriptor(end.fileno(), f"relocd-channel-{number}")


def drain(pid: int, path: Path) -> None:
    """Take all that this QEMU still writes to channels that it opened at ``path``, until it closes them.

    That happens in a thread of its own, which ends with them. Does nothing if there are none. Blocks for a moment.
    """
    if ends := list(_held(pid, path)):
        threading.Thread(target=_drain, args=(ends,), name=f"drain-{pid}", daemon=True).start()


def taken(pid: int, number: int) -> int | None:
    """A duplicate of a descriptor of another process; None if it has none of that number, or we lack the right."""
    try:
        process = os.pidfd_open(pid)
    except OSError:
        return None
    try:
        descriptor = int(ctypes.CDLL(None).syscall(_SYS_PIDFD_GETFD, process, number, 0))
    finally:
        os.close(process)
    return descriptor if descriptor >= 0 else None


def _held(pid: int, path: Path) -> Iterator[socket.socket]:
    """What was accepted from a listening socket has that one's name; the connecting end has none."""
    for number in _sockets(pid):
        descriptor = taken(pid, number)
        if descriptor is None:
            continue  # closed since
        end = socket.socket(fileno=descriptor)
        if end.family == socket.AF_UNIX and end.getsockname() == str(path) and not _listens(end):
            yield end
        else:
            end.close()


def _sockets(pid: int) -> Iterator[int]:
    """A process opens and closes descriptors while they are looked at, which must hide no other."""
    with contextlib.suppress(OSError):  # it has ended
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                if entry.readlink().name.startswith("socket:"):
                    yield int(entry.name)


def _listens(end: socket.socket) -> bool:
    return bool(end.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))


def _drain(ends: list[socket.socket]) -> None:
    memory, waiting = bytearray(_PIECE_BYTES), select.poll()
    by_number = {end.fileno(): end for end in ends}
    for number in by_number:
        waiting.register(number, select.POLLIN)
    while by_number:
        for number, _ in waiting.poll():
            if not _take(by_number[number], memory):
                waiting.unregister(number)
                by_number.pop(number).close()


def _take(end: socket.socket, memory: bytearray) -> int:
    """Drop what is there; 0 at the end, however it came."""
    try:
        return end.recv_into(memory, 0, socket.MSG_DONTWAIT)
    except BlockingIOError:
        return 1
    except OSError:
        return 0
