"""A stretch of wire between a source and a target's relocation port that can break, lose or hold a chosen message."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

from attrs import frozen

from tests.testbed.daemons import PORT
from tests.testbed.netns import socket_in
from tests.testbed.network import Host

Address = tuple[str, int]


@frozen
class Place:
    """Where the wire is laid: it listens at ``here`` and connects to ``there``, with sockets of ``new_socket``."""

    here: Address
    there: Address
    new_socket: Callable[[], socket.socket]


def loopback(port: int) -> Place:
    """In this process's own namespace, before a daemon's ``port``."""
    return Place(
        ("127.0.0.1", 0), ("127.0.0.1", port), lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    )


class Wire:
    """Passes everything on until ``message`` comes by, such as ``(commit``; then it does what it was made for.

    ``before``: all connections break, and the message is lost with them. ``after``: they break behind it.
    ``swallow``: only the message is lost. ``hold``: it waits, and everything else on the wire in both directions,
    until ``release`` or ``cut``.
    """

    def __init__(self, place: Place, message: str = "", *, action: str = "before") -> None:
        assert action in ("before", "after", "swallow", "hold")
        self._place = place
        self._message = message.encode()
        self._action = action
        self._sockets: list[socket.socket] = []
        self._lock = threading.Lock()
        self._go_on = threading.Event()
        self.struck = threading.Event()
        self._server = place.new_socket()
        self._server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._server.bind(place.here)
        self._server.listen()
        self.port = int(self._server.getsockname()[1])
        threading.Thread(target=self._serve, daemon=True).start()

    def release(self) -> None:
        """Let what is held go on."""
        self._go_on.set()

    def cut(self) -> None:
        """Break every connection; new ones still pass."""
        with self._lock:
            sockets, self._sockets = self._sockets, []
        for sock in sockets:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        self._go_on.set()

    def close(self) -> None:
        """Break everything and listen no more."""
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self.cut()

    def _serve(self) -> None:
        while True:
            try:
                here, _ = self._server.accept()
            except OSError:
                return
            there = self._place.new_socket()
            try:
                there.connect(self._place.there)
            except OSError:
                here.close()
                continue
            with self._lock:
                self._sockets += [here, there]
            for source, target in ((here, there), (there, here)):
                threading.Thread(target=self._pass, args=(source, target), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if self._action == "hold" and self.struck.is_set():
                    self._go_on.wait()
                at = data.find(self._message) if self._message and not self.struck.is_set() else -1
                if at >= 0:
                    data = self._strike(data, at, target)
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    def _strike(self, data: bytes, at: int, target: socket.socket) -> bytes:
        """Do what this wire is for; return what is to be passed on afterwards."""
        end = data.index(b"\n", at) + 1
        self.struck.set()
        if self._action == "swallow":
            return data[:at] + data[end:]
        target.sendall(data[:at] if self._action in ("before", "hold") else data[:end])
        if self._action == "hold":
            self._go_on.wait()
            return data[at:]
        self.cut()
        return b""


#: The mark of the wire's own connections, which must not be led into it again.
_MARK = 7
_WIRE_PORT = 9002


@contextlib.contextmanager
def between(source: Host, target: Host) -> Iterator[Place]:
    """Lead ``source``'s connections to ``target``'s relocation port through a wire, without either noticing."""

    def marked() -> socket.socket:
        sock = socket_in(source.netns, socket.SOCK_STREAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, _MARK)
        return sock

    rules = f"""
        table ip wire {{
            chain output {{
                type nat hook output priority -100;
                ip daddr {target.address} tcp dport {PORT} meta mark != {_MARK} redirect to :{_WIRE_PORT}
            }}
        }}
    """
    source.run(["nft", "-f", "-"], text_in=rules)
    try:
        yield Place(("0.0.0.0", _WIRE_PORT), (target.address, PORT), marked)
    finally:
        source.run(["nft", "delete", "table", "ip", "wire"])
