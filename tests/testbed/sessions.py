"""Connections to a guest that must survive its relocation: TCP echo, and a real ssh."""

from __future__ import annotations

import socket
import subprocess
import threading
import time
from types import TracebackType

from attrs import frozen

from .commands import TestbedError
from .image import GuestImage
from .initramfs import HOST_ALIAS
from .netns import socket_in
from .network import Host
from .processes import stop_child
from .udp import ECHO_PORT

PATIENCE_S = 60.0  # how long a connection may be silent before it counts as lost


@frozen
class SessionStats:
    """A session so far. ``error`` is empty while it is unbroken; ``longest_ms`` is the longest wait for an answer."""

    exchanged: int
    longest_ms: float
    error: str


class _Session:
    """Counts answers in a thread, keeps the longest wait, and lets others wait for progress."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._exchanged = 0
        self._longest_s = 0.0
        self._error = ""
        self._stopping = False

    def stats(self) -> SessionStats:
        """Counts so far."""
        with self._changed:
            return SessionStats(self._exchanged, self._longest_s * 1000, self._error)

    def wait_more(self, count: int, timeout_s: float = PATIENCE_S) -> None:
        """Return after ``count`` more answers. Raises TestbedError if the session breaks or stalls."""
        with self._changed:
            goal = self._exchanged + count
            self._changed.wait_for(lambda: self._exchanged >= goal or self._error, timeout_s)
            if self._exchanged < goal:
                raise TestbedError(self._error or f"{type(self).__name__} stalled for {timeout_s} s")

    def _count(self, waited_s: float) -> None:
        with self._changed:
            self._exchanged += 1
            self._longest_s = max(self._longest_s, waited_s)
            self._changed.notify_all()

    def _break(self, error: str) -> None:
        with self._changed:
            if not self._stopping and not self._error:
                self._error = error
            self._changed.notify_all()


class TcpEchoSession(_Session):
    """One TCP connection that never reconnects: a message, its echo, a pause, the next; a context manager."""

    def __init__(self, netns: str, ip: str, *, port: int = ECHO_PORT, interval_s: float = 0.02) -> None:
        super().__init__()
        self._address = (ip, port)
        self._interval_s = interval_s
        self._sock = socket_in(netns, socket.SOCK_STREAM)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._talk, name="tcp-echo", daemon=True)

    def __enter__(self) -> TcpEchoSession:
        self._sock.settimeout(PATIENCE_S)
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sock.connect(self._address)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping = True
        self._stop.set()
        self._sock.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._sock.close()

    def _talk(self) -> None:
        number = 0
        try:
            while not self._stop.wait(self._interval_s):
                number += 1
                self._exchange(f"message {number:012d}\n".encode())
        except OSError as error:
            self._break(f"the TCP connection broke after {number} messages: {error}")

    def _exchange(self, message: bytes) -> None:
        sent_s = time.monotonic()
        self._sock.sendall(message)
        echo = b""
        while len(echo) < len(message):
            data = self._sock.recv(len(message) - len(echo))
            if not data:
                raise ConnectionResetError("closed by the guest")
            echo += data
        if echo != message:
            raise ConnectionAbortedError(f"{message!r} came back as {echo!r}")
        self._count(time.monotonic() - sent_s)


class SshSession(_Session):
    """One ssh login with a loop that counts aloud, several times a second; a context manager."""

    # usleep is busybox's.
    LOOP = "n=0; while echo tick $n; do n=$((n+1)); usleep 50000; done"

    def __init__(self, host: Host, image: GuestImage, ip: str) -> None:
        super().__init__()
        self._argv = ssh_argv(image, ip, self.LOOP)
        self._host = host
        self._thread = threading.Thread(target=self._listen, name="ssh", daemon=True)

    def __enter__(self) -> SshSession:
        self._process = self._host.popen(self._argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping = True
        stop_child(self._process)
        self._thread.join()

    def _listen(self) -> None:
        output = self._process.stdout
        if output is None:
            return
        expected = 0
        last_s = time.monotonic()
        with output:
            for line in output:
                if line.strip() != f"tick {expected}".encode():
                    self._break(f"tick {expected} was due, ssh says {line!r}")
                    continue
                expected += 1
                self._count(time.monotonic() - last_s)
                last_s = time.monotonic()
        self._break(f"ssh ended after {expected} ticks, exit code {self._process.wait()}")


def ssh_argv(image: GuestImage, ip: str, command: str) -> list[str]:
    """The command line that runs ``command`` in a guest as root."""
    options = {
        "BatchMode": "yes",
        "IdentitiesOnly": "yes",
        "IdentityFile": str(image.ssh_key),
        "UserKnownHostsFile": str(image.known_hosts),
        "HostKeyAlias": HOST_ALIAS,
        "StrictHostKeyChecking": "yes",
        "ConnectTimeout": "20",
        "LogLevel": "ERROR",
    }
    words = [word for key, value in options.items() for word in ("-o", f"{key}={value}")]
    return ["ssh", "-F", "none", *words, f"root@{ip}", command]
