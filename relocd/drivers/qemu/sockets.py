"""Sockets between relocd and QEMU: one to listen on that QEMU inherits, and pairs that carry a stream."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

from relocd.errors import DriverError

STREAM_BUFFER_BYTES = 128 * 1024
"""Of each end and direction. QEMU takes what is buffered for sent, so much of it makes the switchover too early."""

MAX_PATH_BYTES = 107
"""A unix socket's path, without the final NUL (unix(7))."""


def check_length(path: Path) -> None:
    """Raise DriverError if a socket cannot have this path."""
    if len(str(path).encode()) > MAX_PATH_BYTES:
        raise DriverError(
            f"the socket path {path} is longer than {MAX_PATH_BYTES} bytes", hint="use a shorter --run-dir"
        )


@contextlib.contextmanager
def listening(path: Path) -> Iterator[socket.socket]:
    """A listening unix socket at ``path``, closed here at the end; whoever inherited it goes on with it.

    Who connects before the inheritor is ready waits in the queue, so nobody has to poll for the socket.
    """
    check_length(path)
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        path.chmod(0o600)
        listener.listen(8)
        # While QEMU starts, two of its threads watch the socket. Both try to take who waits there already, and the
        # one that comes too late would wait in accept() for ever, the whole of QEMU with it.
        listener.setblocking(False)
        yield listener


def stream_pair() -> tuple[socket.socket, socket.socket]:
    """Two connected stream sockets, in blocking mode, with small buffers."""
    pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    for end in pair:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, STREAM_BUFFER_BYTES)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, STREAM_BUFFER_BYTES)
    return pair
