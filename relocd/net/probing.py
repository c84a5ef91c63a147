"""Probes between bridges: what there is to probe here, the asking end, and one answer. See relocd.segment.probe."""

from __future__ import annotations

import contextlib
import hashlib
import select
import socket
import time
from collections.abc import Collection, Iterable, Mapping
from ipaddress import ip_interface
from pathlib import Path

import psutil
from attrs import frozen

from relocd.net.packet import FRAME_BYTES, device_address, device_is_up, open_packets, packet_trouble
from relocd.segment.probe import ETHERTYPE, REPEAT_S, Kind, build, is_probe
from relocd.segment.proof import BridgeEnd, EndState

_IDENTITY_DIGITS = 32

#: Frames that are taken in one go, so that a flood of them cannot keep a thread or the reactor.
_AT_ONCE = 64


@frozen
class Ends:
    """Bridges of this host, and a socket on each that is ready. Whoever is given this closes it, in a thread."""

    ends: tuple[BridgeEnd, ...]
    sockets: Mapping[str, socket.socket]

    def close(self) -> None:
        """Let go of the sockets. Blocks for some tens of milliseconds."""
        for sock in self.sockets.values():
            sock.close()


def open_ends(names: Iterable[str], bridges: Collection[str]) -> Ends:
    """Look at some of ``bridges``, which are all of this host. Blocks shortly."""
    ends: list[BridgeEnd] = []
    sockets: dict[str, socket.socket] = {}
    for name in names:
        if name not in bridges:
            ends.append(BridgeEnd(name, EndState.ABSENT, text=f"there is no bridge {name}"))
            continue
        try:
            identity, up = _identity(name), device_is_up(name)
            if up:
                sockets[name] = open_packets(name, ETHERTYPE)
        except OSError as error:
            ends.append(BridgeEnd(name, EndState.UNABLE, "", _subnets(name), packet_trouble(error)))
            continue
        state, text = (EndState.READY, "") if up else (EndState.DOWN, f"{name} is down")
        ends.append(BridgeEnd(name, state, identity, _subnets(name), text))
    return Ends(tuple(ends), sockets)


def _subnets(name: str) -> tuple[str, ...]:
    found: set[str] = set()
    for entry in psutil.net_if_addrs().get(name, ()):
        if entry.family in (socket.AF_INET, socket.AF_INET6) and entry.netmask:
            address = entry.address.partition("%")[0]
            network = ip_interface(f"{address}/{_prefix_length(entry.netmask)}").network
            if not network.is_link_local:
                found.add(str(network))
    return tuple(sorted(found))


def _prefix_length(netmask: str) -> int:
    family = socket.AF_INET6 if ":" in netmask else socket.AF_INET
    return int.from_bytes(socket.inet_pton(family, netmask), "big").bit_count()


def _identity(name: str) -> str:
    """The same for the same device of the same network namespace of the same running kernel."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    namespace = Path("/proc/thread-self/ns/net").readlink()
    said = f"{boot} {namespace} {socket.if_nametoindex(name)}"
    return hashlib.sha256(said.encode()).hexdigest()[:_IDENTITY_DIGITS]


@frozen
class Heard:
    """Bridges on which an answer came in, and those on which our own question did: frames go round there."""

    answers: frozenset[str] = frozenset()
    echoes: frozenset[str] = frozenset()


def ask(sockets: Mapping[str, socket.socket], key: bytes, wait_s: float) -> Heard:
    """Send questions on these bridges until each is answered, for ``wait_s`` at most. Blocks."""
    questions = {name: _frame(Kind.ASK, key, name) for name in sockets}
    waiting = {name: sock for name, sock in sockets.items() if questions[name]}
    deadline = time.monotonic() + wait_s
    heard: set[str] = set()
    echoes: set[str] = set()
    while waiting and time.monotonic() < deadline:
        for name, sock in waiting.items():
            _send(sock, questions[name])
        heard |= _listen(waiting, echoes, key, min(deadline, time.monotonic() + REPEAT_S))
        waiting = {name: sock for name, sock in waiting.items() if name not in heard}
    return Heard(frozenset(heard), frozenset(echoes))


def _listen(waiting: Mapping[str, socket.socket], echoes: set[str], key: bytes, until_s: float) -> set[str]:
    """Those on which an answer came in, at the latest when the time is over; adds to ``echoes``."""
    heard: set[str] = set()
    poll = select.poll()
    names = {sock.fileno(): name for name, sock in waiting.items()}
    for descriptor in names:
        poll.register(descriptor, select.POLLIN)
    while len(heard) < len(waiting) and (left_s := until_s - time.monotonic()) > 0:
        for descriptor, _ in poll.poll(left_s * 1000):
            name = names[descriptor]
            kinds = received(waiting[name], key, name)
            if Kind.ASK in kinds:
                echoes.add(name)
            if Kind.ANSWER in kinds:
                heard.add(name)
                poll.unregister(descriptor)
    return heard


def received(sock: socket.socket, key: bytes, name: str) -> frozenset[Kind]:
    """The kinds of probes among the frames that are there. Does not block."""
    found: set[Kind] = set()
    for _ in range(_AT_ONCE):
        try:
            frame = sock.recv(FRAME_BYTES)
        except OSError:  # nothing more, or the device went down meanwhile
            break
        found |= {kind for kind in Kind if is_probe(frame, kind, key, name)}
    return frozenset(found)


def answer(sock: socket.socket, key: bytes, name: str) -> None:
    """Answer a question. One that cannot be sent now is not: the next question comes soon."""
    _send(sock, _frame(Kind.ANSWER, key, name))


def _frame(kind: Kind, key: bytes, name: str) -> bytes:
    """Empty if the bridge is gone."""
    try:
        return build(kind, key, name, device_address(name))
    except OSError:
        return b""


def _send(sock: socket.socket, frame: bytes) -> None:
    with contextlib.suppress(OSError):
        sock.send(frame)
