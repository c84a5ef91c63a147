"""A stretch of wire between a source and a target's relocation port that can break, lose or hold a chosen message."""

from __future__ import annotations

import contextlib
import fcntl
import socket
import struct
import termios
import threading
import time
from collections.abc import Callable, Iterator

from attrs import frozen

from tests.testbed.daemons import PORT
from tests.testbed.netns import socket_in
from tests.testbed.network import Host

Address = tuple[str, int]

#: A socket closed with this resets its connection and leaves nothing behind (socket(7), SO_LINGER).
_RESET = struct.pack("ii", 1, 0)
DELIVERY_S = 10.0
PAGES_BYTES = 8192
"""What comes in pieces as large as this is no dialogue."""


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
    until ``release`` or ``cut``. ``deliver``: the same, but the message itself arrives; ``struck`` is set when the
    other end's kernel has it. ``whole`` off: only the message's own connection is held.

    ``message`` may be bytes, for what is not a line. ``answer``: only what the target says counts.
    """

    def __init__(
        self,
        place: Place,
        message: str | bytes = "",
        *,
        action: str = "before",
        answer: bool = False,
        whole: bool = True,
    ) -> None:
        assert action in ("before", "after", "swallow", "hold", "deliver")
        self._place = place
        self._message = message.encode() if isinstance(message, str) else message
        self._is_line = isinstance(message, str)
        self._action = action
        self._answer = answer
        self._whole = whole
        self._sockets: list[socket.socket] = []
        self._lock = threading.Lock()
        self._held: set[socket.socket] = set()
        self._seen = threading.Event()
        self._go_on = threading.Event()
        self._flips = threading.Event()
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

    def flip(self) -> None:
        """Change one bit of the next piece of pages on its way to the target; ``struck`` is set when that is done."""
        self._flips.set()

    def cut(self) -> None:
        """Break every connection; new ones still pass."""
        for sock in self._take_sockets():
            _shut(sock)
        self._go_on.set()

    def close(self) -> None:
        """Break everything, leave nothing of it in the kernel, and listen no more."""
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        sockets = self._take_sockets()
        self._go_on.set()
        for sock in sockets:
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            _shut(sock)
            sock.close()

    def _take_sockets(self) -> list[socket.socket]:
        with self._lock:
            sockets, self._sockets = self._sockets, []
        return sockets

    def _serve(self) -> None:
        while True:
            try:
                here, _ = self._server.accept()
            except OSError:
                return
            threading.Thread(target=self._join, args=(here,), daemon=True).start()

    def _join(self, here: socket.socket) -> None:
        there = self._place.new_socket()
        with self._lock:
            self._sockets += [here, there]
        try:
            there.connect(self._place.there)
        except OSError:
            here.close()
            return
        threading.Thread(target=self._pass, args=(there, here, True), daemon=True).start()
        self._pass(here, there, False)

    def _pass(self, source: socket.socket, target: socket.socket, answers: bool) -> None:
        try:
            while data := self._take(source, target):
                if not answers and self._flips.is_set() and len(data) >= PAGES_BYTES:
                    data = self._flipped(data)
                at = data.find(self._message) if self._awaited(answers) else -1
                if not _sent(target, self._strike(data, at, source, target) if at >= 0 else data):
                    return  # nobody takes it; what they said before may still be on its way
        except OSError:
            _shut(target)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    def _flipped(self, data: bytes) -> bytes:
        self._flips.clear()
        self.struck.set()
        middle = len(data) // 2
        return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]

    def _take(self, source: socket.socket, target: socket.socket) -> bytes:
        """What comes next, or the end; it waits here while the wire is held."""
        data = source.recv(65536)
        if self._is_held(source, target):
            self._go_on.wait()
        return data

    def _awaited(self, answers: bool) -> bool:
        return bool(self._message) and not self._seen.is_set() and (answers or not self._answer)

    def _is_held(self, source: socket.socket, target: socket.socket) -> bool:
        if self._action not in ("hold", "deliver") or not self._seen.is_set():
            return False
        return self._whole or bool(self._held & {source, target})

    def _strike(self, data: bytes, at: int, source: socket.socket, target: socket.socket) -> bytes:
        """Do what this wire is for; return what is to be passed on afterwards."""
        end = data.index(b"\n", at) + 1 if self._is_line else len(data)
        self._held = {source, target}
        self._seen.set()
        if self._action == "swallow":
            self.struck.set()
            return data[:at] + data[end:]
        kept = at if self._action in ("before", "hold") else end
        if _sent(target, data[:kept]) and self._action == "deliver":
            _wait_delivered(target)
        self.struck.set()
        if self._action in ("hold", "deliver"):
            self._go_on.wait()
            return data[kept:]
        self.cut()
        return b""


class LaneThief(Wire):
    """Lets lanes be announced, then says something else on them."""

    def __init__(self, place: Place) -> None:
        self._lanes: set[socket.socket] = set()
        super().__init__(place)

    def _take(self, source: socket.socket, target: socket.socket) -> bytes:
        data = super()._take(source, target)
        if data.startswith(b"(lane"):
            self._lanes.add(source)
        elif source in self._lanes:
            return bytes(len(data))
        return data


def _shut(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)


def _sent(sock: socket.socket, data: bytes) -> bool:
    """Send, if there is still somebody who takes it."""
    try:
        sock.sendall(data)
    except OSError:
        return False
    return True


def _wait_delivered(sock: socket.socket) -> None:
    """Return once the peer's kernel has acknowledged everything that was sent (tcp(7), SIOCOUTQ)."""
    deadline = time.monotonic() + DELIVERY_S
    while struct.unpack("i", fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)))[0]:
        assert time.monotonic() < deadline, "the peer does not take what is sent"
        time.sleep(0.001)


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
    with _rules(source, "wire", rules):
        yield Place(("0.0.0.0", _WIRE_PORT), (target.address, PORT), marked)


@contextlib.contextmanager
def severed(one: Host, other: Host) -> Iterator[None]:
    """Neither host receives a packet of the other, the wire's on its own host included, and nothing tells them so.

    Guests are not touched: their packets pass the hosts' bridges and have other addresses.
    """
    with _rules(one, "cut", _deaf_to(other)), _rules(other, "cut", _deaf_to(one)):
        yield


def _deaf_to(peer: Host) -> str:
    return f"""
        table ip cut {{
            chain input {{
                type filter hook input priority 0;
                ip saddr {peer.address} drop
                tcp dport {_WIRE_PORT} drop
            }}
        }}
    """


@contextlib.contextmanager
def _rules(host: Host, table: str, text: str) -> Iterator[None]:
    host.run(["nft", "-f", "-"], text_in=text)
    try:
        yield
    finally:
        host.run(["nft", "delete", "table", "ip", table])
