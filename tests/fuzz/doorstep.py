"""A connection to the relocation port without a network: the real dialogue and session, a clock that stands still."""

from __future__ import annotations

import socket
from typing import Any
from uuid import UUID

from attrs import frozen
from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock

from relocd.config import Config
from relocd.daemon.dialogue import Dialogue
from relocd.daemon.session import Session
from relocd.wire.lines import MAX_LINE_BYTES
from relocd.wire.messages import Hello, Inquire, Lane, Measure, Message, Propose

_PEER = IPv4Address("TCP", "10.0.0.2", 1000)


class Wire:
    """What a dialogue uses of a TCP transport. ``written`` is what the peer would read."""

    def __init__(self) -> None:
        self.written = b""
        self.open = True
        self._socket = socket.socket()

    def write(self, data: bytes) -> None:
        assert self.open, "something is said on a closed connection"
        self.written += data

    def loseConnection(self) -> None:
        self.open = False

    abortConnection = loseConnection  # noqa: N815 - Twisted's name

    def getPeer(self) -> IPv4Address:
        return _PEER

    getHost = getPeer  # noqa: N815 - Twisted's name

    def getHandle(self) -> socket.socket:
        return self._socket

    def _nothing(self, *_: object) -> None:
        """Of no interest here."""

    setTcpNoDelay = setTcpKeepAlive = registerProducer = unregisterProducer = _nothing  # noqa: N815


@frozen
class Counter:
    """Takes measurements."""

    asked: list[Message]

    def serve(self, wish: Measure, dialogue: Dialogue) -> None:
        self.asked.append(wish)


@frozen
class Answers:
    """Takes questions about the network."""

    asked: list[Message]

    async def serve(self, wish: Message, *_: object) -> None:
        self.asked.append(wish)

    def tell_use(self, wish: Message, dialogue: Dialogue) -> None:
        self.asked.append(wish)


class Desk:
    """What a session asks of the relocations; it notes what got so far."""

    def __init__(self) -> None:
        self.context = self
        self.trust = self
        self.required = False
        self.config = Config()
        self.asked: list[Message] = []
        self.measurements = Counter(self.asked)
        self.segments = self.tunnels = Answers(self.asked)

    def hello(self) -> Hello:
        return Hello("relocd", "here", 8002)

    def lane_taker(self, lane: Lane, peer: str) -> None:
        self.asked.append(lane)

    async def propose(self, proposal: Propose, hello: Hello, dialogue: Dialogue) -> None:
        assert isinstance(proposal.relocation, UUID)
        self.asked.append(proposal)

    async def inquire(self, question: Inquire, hello: Hello, dialogue: Dialogue) -> None:
        self.asked.append(question)


def visit(data: bytes, size: int) -> None:
    """Say that, in pieces of ``size``: nothing comes of it but messages, answers and a closed connection."""
    wire, desk = Wire(), Desk()
    dialogue = Dialogue(Clock())
    anything: Any = wire
    dialogue.transport = anything
    dialogue.connectionMade()
    relocations: Any = desk
    Session(dialogue, relocations)
    try:
        for at in range(0, len(data), size):
            was_open, before = wire.open, len(desk.asked)
            dialogue.dataReceived(data[at : at + size])
            assert was_open or len(desk.asked) == before, "something is heard on a closed connection"
    finally:
        wire._socket.close()
    assert b"an internal error" not in wire.written, "something was not foreseen; the log has it"
    assert not wire.written or wire.written.endswith(b"\n")
    assert all(len(line) <= MAX_LINE_BYTES for line in wire.written.splitlines())
