"""The stand-in's surroundings: an ``xl`` on the PATH, and a xenstored that knows of domains' ends and terminals."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import sys
import tempfile
import threading
from pathlib import Path

from tests.drivers.xen.standin import state
from tests.testbed.image import CHECKOUT

_HEADER = struct.Struct("<IIII")
_READ, _WATCH, _EVENT, _ERROR = 2, 4, 15, 16
_POLL_S = 0.02


class StandinXen:
    """One Xen for as long as this is open."""

    def __init__(self) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="relocd-xl-", ignore_cleanup_errors=True)
        self.path = Path(self._directory.name)
        self.socket = self.path / "xenstored"
        program = self.path / "bin" / "xl"
        program.parent.mkdir()
        run = f'cd {CHECKOUT} && exec {sys.executable} -m tests.drivers.xen.standin {self.path} "$@"'
        program.write_text(f"#!/bin/sh\n{run}\n")
        program.chmod(0o755)
        self._path_before = os.environ["PATH"]
        os.environ["PATH"] = f"{program.parent}:{self._path_before}"
        self._stopping = threading.Event()
        self._watchers: list[socket.socket] = []
        self._terminals: dict[str, tuple[int, int]] = {}
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.socket))
        self._listener.listen()
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._accept, self._look)]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """End it."""
        os.environ["PATH"] = self._path_before
        self._stopping.set()
        self._threads[1].join()
        self._listener.close()
        for pair in self._terminals.values():
            for descriptor in pair:
                os.close(descriptor)
        self._directory.cleanup()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError, struct.error), client, client.makefile("rb") as stream:
            while True:
                kind, request, _, length = _HEADER.unpack(stream.read(_HEADER.size))
                text = stream.read(length).decode()
                if kind == _WATCH:
                    self._watchers.append(client)
                    _answer(client, kind, request, b"OK\0")
                elif "/console/tty" in text:
                    _answer(client, _READ, request, self._terminal(text.split("/")[3]).encode())
                else:
                    _answer(client, _ERROR, request, b"ENOENT\0")

    def _terminal(self, domid: str) -> str:
        if domid not in self._terminals:
            self._terminals[domid] = os.openpty()
        return os.ttyname(self._terminals[domid][1])

    def _look(self) -> None:
        """Tell of each change: that is more than xenstored does, and is no harm."""
        seen = None
        while not self._stopping.wait(_POLL_S):
            with state(self.path) as xen:
                now = sorted((domid, each["shutdown"]) for domid, each in xen["domains"].items())
            if now != seen:
                seen = now
                for client in tuple(self._watchers):
                    try:
                        _answer(client, _EVENT, 0, b"@releaseDomain\0@releaseDomain\0")
                    except OSError:
                        self._watchers.remove(client)


def _answer(client: socket.socket, kind: int, request: int, payload: bytes) -> None:
    client.sendall(_HEADER.pack(kind, request, 0, len(payload)) + payload)
