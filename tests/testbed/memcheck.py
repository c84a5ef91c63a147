"""What a guest's memory checker (``guest/memcheck.c``) says of itself, asked over the network."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Callable

from attrs import frozen

from .commands import TestbedError
from .netns import socket_in

PORT = 7007
_ASK_AGAIN_S = 0.2
_LINE = re.compile(r"MEMCHECK ((?:\w+=\S+ ?)+)")


@frozen
class MemCheck:
    """Counters of a guest. They only grow while ``boot_id`` stays; ``bad`` counts pages found damaged."""

    uptime_s: float
    filled_mib: int
    want_mib: int
    sweeps: int
    verified: int
    dirtied: int
    bad: int
    seq: int
    boot_id: str

    @property
    def full(self) -> bool:
        """All memory that was asked for is filled; from now on it is verified."""
        return self.filled_mib == self.want_mib

    @property
    def pages(self) -> int:
        """Pages of 4 KiB that are checked in one sweep."""
        return self.want_mib * 256

    def follows(self, earlier: MemCheck) -> bool:
        """Whether this is the same guest, later, and none of its counters went back."""
        pairs = [
            (earlier.uptime_s, self.uptime_s),
            (earlier.filled_mib, self.filled_mib),
            (earlier.verified, self.verified),
            (earlier.dirtied, self.dirtied),
            (earlier.bad, self.bad),
        ]
        return earlier.boot_id == self.boot_id and earlier.seq < self.seq and all(a <= b for a, b in pairs)


def parse(text: str) -> MemCheck:
    """The last complete line of the checker in ``text``, say a console's. Raises ValueError if there is none."""
    lines = [line for line in text.splitlines() if "MEMCHECK " in line and " boot=" in line]
    match = _LINE.search(lines[-1]) if lines else None
    if match is None:
        raise ValueError(f"no line of the memory checker: {text[-200:]!r}")
    values = dict(word.split("=", 1) for word in match[1].split())
    try:
        return MemCheck(
            uptime_s=float(values["t"]),
            filled_mib=int(values["filled"]),
            want_mib=int(values["want"]),
            boot_id=values["boot"],
            **{name: int(values[name]) for name in ("sweeps", "verified", "dirtied", "bad", "seq")},
        )
    except KeyError as error:
        raise ValueError(f"the memory checker does not tell {error}: {lines[-1]!r}") from error


def guest_stat(
    netns: str, ip: str, *, request: str = "stat", port: int = PORT, timeout_s: float = 30
) -> MemCheck:
    """Ask a guest from inside a namespace, again and again until it answers. Raises TestbedError."""
    deadline = time.monotonic() + timeout_s
    with socket_in(netns, socket.SOCK_DGRAM) as sock:
        sock.settimeout(_ASK_AGAIN_S)
        while time.monotonic() < deadline:
            try:
                sock.sendto(request.encode(), (ip, port))
                return parse(sock.recv(4096).decode())
            except TimeoutError:
                continue
            except OSError:  # no route to host: nobody answers ARP yet
                time.sleep(_ASK_AGAIN_S)
    raise TestbedError(f"the guest at {ip} did not answer within {timeout_s} s")


def wait_filled(netns: str, ip: str, *, timeout_s: float = 120) -> MemCheck:
    """Return once the guest has filled all its memory."""
    return _poll(netns, ip, lambda now: now.full, timeout_s)


def full_sweep(netns: str, ip: str, *, timeout_s: float = 120) -> MemCheck:
    """Have every page verified now, as fast as the guest can, and return the counters after it."""
    before = guest_stat(netns, ip, request="sweep", timeout_s=timeout_s)
    return _poll(netns, ip, lambda now: now.verified >= before.verified + before.pages, timeout_s)


def _poll(netns: str, ip: str, done: Callable[[MemCheck], bool], timeout_s: float) -> MemCheck:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        now = guest_stat(netns, ip, timeout_s=timeout_s)
        if done(now):
            return now
        time.sleep(_ASK_AGAIN_S / 2)
    raise TestbedError(f"the guest at {ip} was not done within {timeout_s} s; its last words: {now}")
