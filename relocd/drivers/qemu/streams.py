"""The streams of one migration: a pair whose other end QEMU is given, or sockets in a directory that QEMU can reach.

With multifd QEMU opens, or waits for, several connections, and takes no descriptors for them in any version up to
10.0: it needs a path. QEMU may run as a user that can reach nothing of ours, so its path leads through a directory
that it has inherited as a descriptor. Nobody else can reach that, as it lies in one that is closed to all.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from relocd.drivers.aio import awaited
from relocd.drivers.qemu import held
from relocd.drivers.qemu.process import INHERITED_FD
from relocd.drivers.qemu.qmp import Monitor
from relocd.drivers.qemu.sockets import stream_pair
from relocd.errors import DriverError

DIRECTORY_FD = INHERITED_FD + 1
"""The number under which QEMU has the directory; the monitor's socket comes before it."""
_ACCEPT_TIMEOUT_S = 10.0
"""QEMU connects within milliseconds of the command."""


@contextlib.contextmanager
def opened(run_dir: Path) -> Iterator[int]:
    """Make the directory for a domain's sockets and open it. Whoever holds the descriptor may write there."""
    path = _directory(run_dir)
    path.mkdir(mode=0o700, exist_ok=True)
    path.chmod(0o1777)  # QEMU may be any user, and what is ours there must stay what it is
    descriptor = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def reachable(pid: int, run_dir: Path) -> bool:
    """Whether that QEMU may leave through channels.

    It must have the directory, which one that an older relocd started has not, and we must be allowed to take
    descriptors from it, since channels cannot be given up safely without that (``held``).
    """
    descriptor = held.taken(pid, DIRECTORY_FD)
    if descriptor is None:
        return False
    try:
        return os.path.samestat(os.fstat(descriptor), _directory(run_dir).stat())
    except OSError:
        return False
    finally:
        os.close(descriptor)


def drain(pid: int, run_dir: Path) -> None:
    """See ``held.drain``, for what ``send_over`` has returned."""
    held.drain(pid, _directory(run_dir) / "out")


async def attach(monitor: Monitor, name: str) -> socket.socket:
    """Give QEMU one end of a new stream, as ``fd:name``, and return the other one."""
    ours, theirs = stream_pair()
    try:
        await monitor.send_descriptor(theirs.fileno(), name)
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
    return ours


async def send_over(monitor: Monitor, run_dir: Path, count: int) -> list[socket.socket]:
    """Have QEMU migrate over ``count`` connections, the main one first, and return our ends of them."""
    path = _directory(run_dir) / "out"
    with _closed_on_failure() as streams, _listening(path, count) as listener:
        await monitor.execute("migrate", {"uri": _uri(path)})
        for _ in range(count):
            streams.append(await _accepted(listener))
        await held.hold(monitor, streams[1:])
        return streams


async def receive_over(monitor: Monitor, run_dir: Path, count: int) -> list[socket.socket]:
    """Have QEMU wait for a migration over ``count`` connections and make them, the main one first.

    From then on until the first bytes come QEMU may not answer: it looks at them before it does anything else.
    """
    path = _directory(run_dir) / "in"
    await monitor.execute("migrate-incoming", {"uri": _uri(path)})
    with _closed_on_failure() as streams:
        for _ in range(count):
            stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            streams.append(stream)
            stream.setblocking(False)
            try:
                stream.connect(str(path))  # at once, or not: QEMU's queue has room for all
            except OSError as error:
                raise DriverError(f"QEMU does not wait for its channels: {error.strerror}") from error
            stream.setblocking(True)
        return streams


def _directory(run_dir: Path) -> Path:
    return run_dir / "streams"


def _uri(path: Path) -> str:
    return f"unix:/proc/self/fd/{DIRECTORY_FD}/{path.name}"


@contextlib.contextmanager
def _listening(path: Path, count: int) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        try:
            path.unlink(missing_ok=True)
            listener.bind(str(path))
            path.chmod(0o666)
            listener.listen(count)
        except OSError as error:
            raise DriverError(f"channels cannot be opened at {path}: {error.strerror}") from error
        listener.setblocking(False)
        try:
            yield listener
        finally:
            path.unlink(missing_ok=True)


async def _accepted(listener: socket.socket) -> socket.socket:
    loop = asyncio.get_running_loop()
    try:
        stream, _ = await awaited(asyncio.wait_for(loop.sock_accept(listener), _ACCEPT_TIMEOUT_S))
    except TimeoutError:
        raise DriverError("QEMU does not open the channels of its migration") from None
    stream.setblocking(True)
    return stream


@contextlib.contextmanager
def _closed_on_failure() -> Iterator[list[socket.socket]]:
    streams: list[socket.socket] = []
    try:
        yield streams
    except BaseException:
        for stream in streams:
            stream.close()
        raise
