"""The calling side of connections: to a peer's relocation port, for a dialogue or for a lane."""

from __future__ import annotations

import socket
from typing import Any, TypeVar

from attrs import frozen
from twisted.internet.defer import TimeoutError  # noqa: A004 - Twisted's own
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.error import ConnectError, DNSLookupError
from twisted.internet.error import TimeoutError as UserTimeout
from twisted.internet.protocol import Factory
from twisted.internet.threads import deferToThread

from relocd.config import Config
from relocd.config.model import Compression
from relocd.daemon.detach import detach
from relocd.daemon.dialogue import Dialogue
from relocd.errors import PeerUnreachable, ProtocolError, Untrusted
from relocd.host.link import channels_for, lanes_for
from relocd.wire.messages import Abort, Hello, Lane, Message, Problem, Ready, agree

M = TypeVar("M")


@frozen
class Peer:
    """A relocation port: host as the operator named it (or its address), and port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


async def connect(reactor: Any, peer: Peer, timeout_s: float) -> Dialogue:
    """Open a connection. Raises PeerUnreachable, in words that say what to look at."""
    endpoint = HostnameEndpoint(reactor, peer.host, peer.port, timeout=timeout_s)
    factory = Factory.forProtocol(lambda: Dialogue(reactor))
    factory.noisy = False
    try:
        dialogue = await endpoint.connect(factory)
    except DNSLookupError as error:
        raise PeerUnreachable(
            f"cannot find host '{peer.host}'", hint="Check the name, or give the address."
        ) from error
    except (ConnectError, TimeoutError) as error:
        raise PeerUnreachable(
            f"cannot connect to {peer}: {_reason(error)}",
            hint=f"Is relocd running on {peer.host}, with xen-relocation-server yes and this port, and does its "
            "firewall let this host in?",
        ) from error
    assert isinstance(dialogue, Dialogue)
    return dialogue


async def greet(dialogue: Dialogue, ours: Hello, timeout_s: float) -> Hello:
    """Exchange hello. A peer that hangs up instead has most likely refused us."""
    dialogue.send(ours)
    try:
        answer = await dialogue.receive(timeout_s)
    except PeerUnreachable as error:
        if dialogue.lost is None:
            raise  # it was silent
        raise PeerUnreachable(
            f"{dialogue.peer} closed the connection without a word",
            hint=f"Does xen-relocation-hosts-allow on {dialogue.peer} admit this host? Its log names the reason.",
        ) from error
    hello = expect(answer, Hello, dialogue.peer)
    agree(ours, hello)
    return hello


def _reason(error: Exception) -> str:
    """The system's words, without Twisted's around them; for the end of the wait Twisted has none or its own."""
    if isinstance(error, TimeoutError | UserTimeout):
        return "it did not answer"
    text = error.args[0] if error.args and isinstance(error.args[0], str) else str(error)
    return text.rstrip(".") or "it did not answer"


async def lanes_towards(config: Config, dialogue: Dialogue) -> int:
    """How many lanes this host would like, or take, for a relocation that this connection is about."""
    if config.lanes is not None:
        return config.lanes
    lanes: int = await deferToThread(lanes_for, dialogue.address)
    return lanes


async def channels_towards(config: Config, dialogue: Dialogue, most: int, limit_bytes_s: int = 0) -> int:
    """How many of a hypervisor's channels, ``most`` of which are possible, this host is for."""
    if not most or config.compression is Compression.NONE:
        return 0
    if config.channels is not None:
        return min(config.channels, most)
    channels: int = await deferToThread(channels_for, dialogue.address, limit_bytes_s)
    return min(channels, most)


async def open_lane(reactor: Any, peer: Peer, lane: Lane, timeout_s: float) -> socket.socket:
    """Open one lane and return its socket, blocking, with nothing read beyond the peer's ``ready``."""
    dialogue = await connect(reactor, peer, timeout_s)
    try:
        dialogue.send(lane)
        expect(await dialogue.receive(timeout_s), Ready, dialogue.peer)
        return detach(dialogue.tcp)
    except BaseException:
        dialogue.close()
        raise


def expect(message: Message, kind: type[M], peer: str) -> M:
    """Narrow a message to the kind that must come now; a peer's own complaint is passed on in its words."""
    if isinstance(message, kind):
        return message
    if isinstance(message, Problem) and message.code == Untrusted.code:
        raise Untrusted(f"{peer} says: {message.text}")
    if isinstance(message, Problem | Abort):
        raise ProtocolError(f"{peer} says: {message.text}")
    raise ProtocolError(f"{peer} sent an unexpected {type(message).__name__.lower()}")
