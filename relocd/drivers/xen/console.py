"""A domain's console: xenconsoled's terminal, to a log and to whoever connects to a socket. Reactor thread only.

xenconsoled makes a pseudo terminal for each domain and names it in the xenstore. One program can read it; that is
relocd as long as it runs ('xl console' would take turns with it), and xenconsoled keeps what is said meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import tty
from pathlib import Path

from relocd.drivers.qemu.sockets import check_length

_CHUNK_BYTES = 4096
_BACKLOG_BYTES = 1 << 16


class Console:
    """The console of one domain, from ``terminal`` (/dev/pts/N)."""

    def __init__(self, terminal: str, path: Path, log: Path) -> None:
        check_length(path)
        self._terminal = os.open(terminal, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
        tty.setraw(self._terminal)
        self._log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._clients: dict[int, socket.socket] = {}
        self._path = path
        path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.setblocking(False)
        self._listener.bind(str(path))
        path.chmod(0o600)
        self._listener.listen(4)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._terminal, self._from_guest)
        self._loop.add_reader(self._listener.fileno(), self._accept)

    def close(self) -> None:
        """Let go of everything. Idempotent."""
        if self._terminal < 0:
            return
        for descriptor in (self._terminal, self._listener.fileno()):
            self._loop.remove_reader(descriptor)
        for client in tuple(self._clients.values()):
            self._drop(client)
        os.close(self._terminal)
        os.close(self._log)
        self._listener.close()
        self._path.unlink(missing_ok=True)
        self._terminal = -1

    def _from_guest(self) -> None:
        try:
            data = os.read(self._terminal, _CHUNK_BYTES)
        except BlockingIOError:
            return
        except OSError:  # xenconsoled has closed its end: the domain is gone
            data = b""
        if not data:
            self.close()
            return
        with contextlib.suppress(OSError):  # a full disk costs the log, not the console
            os.write(self._log, data)
        for client in tuple(self._clients.values()):
            try:
                client.send(data)
            except OSError:  # gone, or too slow by all that a socket holds
                self._drop(client)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            client, _ = self._listener.accept()
            client.setblocking(False)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BACKLOG_BYTES)
            self._clients[client.fileno()] = client
            self._loop.add_reader(client.fileno(), self._from_client, client)

    def _from_client(self, client: socket.socket) -> None:
        try:
            data = client.recv(_CHUNK_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._drop(client)
            return
        with contextlib.suppress(OSError):  # a guest that does not listen loses what is typed
            os.write(self._terminal, data)

    def _drop(self, client: socket.socket) -> None:
        self._loop.remove_reader(client.fileno())
        self._clients.pop(client.fileno(), None)
        client.close()
