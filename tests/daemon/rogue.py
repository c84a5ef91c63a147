"""A peer that says what it likes, on real connections: what the tests of abuse are made of."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from typing import Any, Self
from uuid import UUID, uuid4

from attrs import evolve

from relocd.drivers.memory.driver import CPU, DRIVER, MACHINE
from relocd.model import Accelerator, DomainConfig
from relocd.pages import frames
from relocd.pages.frames import Kind
from relocd.wire.lines import MAX_LINE_BYTES
from relocd.wire.messages import Accept, Hello, Intent, Lane, Message, Propose, Ready, decode, encode

HELLO = Hello("rogue", "rogue", 0)
PATIENCE_S = 20.0
OTHER_HOST = "127.0.0.2"
#: For hosts-allow: the hosts that these tests play.
LOOPBACK = r"127\.0\.0\.[12]"


def domain(name: str = "rogue", **changes: Any) -> DomainConfig:
    """A domain that the target would take."""
    plain = DomainConfig(name=name, uuid=uuid4(), memory_mib=1, hypervisor=DRIVER, machine=MACHINE, cpu=CPU)
    return evolve(plain, accelerator=Accelerator.TCG, **changes)


def proposal(what: DomainConfig | None = None, **changes: Any) -> Propose:
    """Of a domain that is fine unless told otherwise."""
    return evolve(Propose(uuid4(), Intent.MOVE, False, False, 1, what or domain()), **changes)


class Rogue:
    """One connection to a relocation port, from any address of this host."""

    def __init__(self, port: int, address: str = "127.0.0.1") -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), PATIENCE_S, (address, 0))
        self._rest = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def say(self, *messages: Message | bytes) -> None:
        """Send all of it at once."""
        data = b"".join(m if isinstance(m, bytes) else encode(m) for m in messages)
        with contextlib.suppress(ConnectionError):  # it may have been left in the middle of it
            self.sock.sendall(data)

    def hear(self) -> Message | None:
        """The next message; None at the end of the connection."""
        while b"\n" not in self._rest:
            try:
                piece = self.sock.recv(MAX_LINE_BYTES)
            except ConnectionError:
                return None
            if not piece:
                return None
            self._rest += piece
        line, _, self._rest = self._rest.partition(b"\n")
        return decode(line)

    def hear_last(self) -> Message | None:
        """What was said last before the connection ended."""
        last = None
        while (message := self.hear()) is not None:
            last = message
        return last

    def hear_all(self) -> bytes:
        """Whatever comes until the connection ends."""
        with contextlib.suppress(ConnectionError):
            while piece := self.sock.recv(MAX_LINE_BYTES):
                self._rest += piece
        return self._rest

    def hear_kind(self, kind: type[Message]) -> Message:
        """The next message of this kind; others are passed over."""
        while not isinstance(message := self.hear(), kind):
            assert message is not None, f"the connection ended before {kind.__name__}"
        return message

    def greet(self) -> None:
        """Exchange hello."""
        self.say(HELLO)
        assert isinstance(self.hear(), Hello)

    def ask(self, *messages: Message | bytes) -> Message | None:
        """Greet, say that, and hear one answer."""
        self.greet()
        self.say(*messages)
        return self.hear()

    def accepted(self, what: Propose) -> Accept:
        """Greet, propose, be accepted."""
        answer = self.ask(what)
        assert isinstance(answer, Accept), answer
        return answer

    def drip(self, piece: bytes) -> bool:
        """Send a piece again and again, with pauses; True when the other side has ended the connection."""
        pause = threading.Event()
        self.sock.setblocking(False)
        for _ in range(1000):
            pause.wait(0.02)
            try:
                self.sock.send(piece)
                if not self.sock.recv(65536):
                    return True
            except BlockingIOError:
                continue
            except OSError:
                return True
        return False

    def vanish(self) -> None:
        """Be gone with a reset."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


def lane(port: int, relocation: UUID, token: str, number: int = 0, address: str = "127.0.0.1") -> Rogue:
    """A connection that has announced itself as a lane."""
    rogue = Rogue(port, address)
    rogue.say(Lane(relocation, token, number))
    return rogue


def opened_lane(port: int, relocation: UUID, token: str) -> Rogue:
    """A lane that was taken."""
    rogue = lane(port, relocation, token)
    assert isinstance(rogue.hear(), Ready)
    return rogue


def frame(kind: Kind, payload: bytes, sequence: int = 0) -> bytes:
    return frames.pack(kind, sequence, payload) + payload


def span_batch(data: bytes, sequence: int) -> bytes:
    """A frame with bytes of the hypervisor's stream."""
    described = struct.pack("!BBBBI", 1, 0, 0, 0, len(data))
    return frame(Kind.BATCH, data + described + struct.pack("!II", 1, len(described)), sequence)
