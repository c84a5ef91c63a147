"""One connection that speaks messages: bytes to messages and back, a queue or a handler, and the end of it."""

from __future__ import annotations

import socket
import ssl
from collections import deque
from collections.abc import Callable
from ipaddress import ip_address
from typing import TYPE_CHECKING, cast

from twisted.internet import defer
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.tcp import Connection
from twisted.logger import Logger
from twisted.python.failure import Failure

from relocd.errors import PeerUnreachable, ProtocolError, Untrusted
from relocd.tls import words
from relocd.tls.channel import Channel
from relocd.wire.lines import LineCutter
from relocd.wire.messages import Message, Problem, decode, encode

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

#: Messages that may wait to be taken before the peer is held to be broken.
MAX_INBOX = 64

#: Seconds that sent data may stay unacknowledged before the kernel gives up (tcp(7), TCP_USER_TIMEOUT), and silence
#: before it asks whether the peer is still there, and between such questions (2 h and 75 s unless told otherwise).
USER_TIMEOUT_S = 20
KEEPALIVE_IDLE_S = 10
KEEPALIVE_INTERVAL_S = 5


class Dialogue(Protocol):
    """A peer at the other end of a connection.

    Messages wait in an inbox until they are taken by ``receive`` or until a handler is set with ``listen``.
    ``idle_timeout_s`` bounds the peer's silence while it is set; 0 means no bound. With ``channel`` all of it goes
    through TLS.
    """

    log = Logger()

    def __init__(self, reactor: IReactorTime, *, idle_timeout_s: float = 0) -> None:
        self._reactor = reactor
        self._cutter = LineCutter()
        self._inbox: deque[Message] = deque()
        self._waiter: Deferred[None] | None = None
        self._handler: Callable[[Message], None] | None = None
        self._on_lost: Callable[[str], None] | None = None
        self._idle_timeout_s = idle_timeout_s
        self._idle: IDelayedCall | None = None
        self._secured: Deferred[None] | None = None
        self.channel: Channel | None = None
        self.distrust: Untrusted | None = None
        self.lost: str | None = None
        self.peer = "?"

    # -- what the owner calls --------------------------------------------------------------------------------------

    def send(self, message: Message) -> None:
        """Send a message; silently nothing once the connection is lost."""
        self.send_bytes(encode(message))

    def send_bytes(self, data: bytes) -> None:
        """Send text for a person."""
        if self.lost is None and self.transport is not None:
            if self.channel is None:
                self.transport.write(data)
            else:
                self.channel.send(data)
                self._flush(self.channel)

    async def secure(self, channel: Channel, timeout_s: float) -> None:
        """Begin TLS as a client, and wait until both sides have proven who they are.

        Raises Untrusted, or PeerUnreachable if the connection is lost or the time is over.
        """
        self.channel = channel
        self._secured = defer.Deferred()
        self._secured.addTimeout(timeout_s, self._reactor)
        channel.begin()
        self._flush(channel)
        try:
            await self._secured
        except defer.TimeoutError:
            raise PeerUnreachable(f"{self.peer} did not answer within {timeout_s:g} s") from None
        finally:
            self._secured = None
        if self.lost is not None:
            raise self._why()

    async def receive(self, timeout_s: float) -> Message:
        """Take the next message. Raises PeerUnreachable if the connection is lost or the time is over."""
        if not self._inbox and self.lost is None:
            self._waiter = defer.Deferred()
            self._waiter.addTimeout(timeout_s, self._reactor)
            try:
                await self._waiter
            except defer.TimeoutError:
                raise PeerUnreachable(f"{self.peer} did not answer within {timeout_s:g} s") from None
            finally:
                self._waiter = None
        if self._inbox:
            return self._inbox.popleft()
        raise self._why()

    def listen(self, handler: Callable[[Message], None], on_lost: Callable[[str], None]) -> None:
        """From now on call ``handler`` with each message, waiting ones first, and ``on_lost`` once at the end."""
        self._handler, self._on_lost = handler, on_lost
        while self._inbox and self._handler is handler:
            handler(self._inbox.popleft())
        if self.lost is not None:
            on_lost(self.lost)

    def set_idle_timeout(self, seconds: float) -> None:
        """Bound the peer's silence from now on; 0 lifts the bound."""
        self._idle_timeout_s = seconds
        self._arm()

    def close(self) -> None:
        """Send what is pending, then end the connection. The owner hears nothing more."""
        self._handler = self._on_lost = None
        if self.transport is not None and self.lost is None:
            if self.channel is not None:
                self.channel.end()
                self._flush(self.channel)
            self.transport.loseConnection()

    @property
    def tcp(self) -> Connection:
        """The transport, with what only TCP has."""
        return cast(Connection, self.transport)

    @property
    def address(self) -> str:
        """This side's address of the connection."""
        return plain_address(self.tcp.getHost().host)

    @property
    def pending_bytes(self) -> int:
        """Bytes received that are not a whole line yet."""
        return self._cutter.pending

    # -- what Twisted calls ----------------------------------------------------------------------------------------

    def connectionMade(self) -> None:
        """Name the peer, make a dead link noticeable."""
        self.peer = plain_address(self.tcp.getPeer().host)
        self.tcp.setTcpNoDelay(True)
        self.tcp.setTcpKeepAlive(True)
        handle = self.tcp.getHandle()
        handle.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT_S * 1000)
        handle.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE_S)
        handle.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_INTERVAL_S)
        self._arm()

    def dataReceived(self, data: bytes) -> None:
        """Decrypt, cut, decode, deliver; a peer that breaks the protocol is told and left."""
        if self.channel is not None:
            data = self._decrypt(self.channel, data)
            if not data:
                return
        self._arm()
        try:
            for line in self._cutter.feed(data):
                if line.strip():
                    self._deliver(decode(line))
                if self.lost is not None:
                    return
        except ProtocolError as error:
            self.breach(error)

    def refuse(self, error: Untrusted) -> None:
        """Tell the peer why it is not heard, and end the connection."""
        self.send(Problem(error.code, f"{error}. {error.hint}"))
        self.distrustful(error)

    def breach(self, error: ProtocolError) -> None:
        """The peer said something it must not: tell it what, and end the connection."""
        self.log.warn("peer {peer} broke the protocol: {error}", peer=self.peer, error=error)
        self.send(Problem(error.code, f"{error} {error.hint}".strip()))
        if self.transport is not None:
            self.transport.loseConnection()
        self._end(f"{self.peer} broke the protocol: {error}")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The connection is gone, for whatever reason."""
        self._end(f"the connection to {self.peer} was lost: {reason.getErrorMessage()}")

    def secured(self) -> None:
        """Both sides have shown a certificate of our authority; nothing the peer said was delivered yet."""
        if self._secured is not None and not self._secured.called:
            self._secured.callback(None)

    # -- inside ----------------------------------------------------------------------------------------------------

    def _decrypt(self, channel: Channel, data: bytes) -> bytes:
        before = channel.established
        try:
            said = channel.receive(data)
        except ssl.SSLError as error:
            self._flush(channel)
            self.distrustful(words.explain(error, self.peer))
            return b""
        self._flush(channel)
        if channel.established and not before:
            self.secured()
        if channel.ended:
            self.tcp.loseConnection()
        return said if self.lost is None else b""

    def distrustful(self, error: Untrusted) -> None:
        """One of both sides does not trust the other: the connection ends with that."""
        self.log.warn("TLS with {peer}: {error}", peer=self.peer, error=error)
        self.distrust = error
        self.tcp.loseConnection()
        self._end(str(error))

    def _flush(self, channel: Channel) -> None:
        if self.transport is not None and (data := channel.outgoing()):
            self.transport.write(data)

    def _why(self) -> PeerUnreachable | Untrusted:
        return self.distrust or PeerUnreachable(self.lost or "the connection is closed")

    def _deliver(self, message: Message) -> None:
        if self._handler is not None:
            self._handler(message)
            return
        if len(self._inbox) >= MAX_INBOX:
            raise ProtocolError("too many messages at once")
        self._inbox.append(message)
        if self._waiter is not None and not self._waiter.called:
            self._waiter.callback(None)

    def _end(self, reason: str) -> None:
        if self.lost is not None:
            return
        self.lost = reason
        if self._idle is not None and self._idle.active():
            self._idle.cancel()
        for waiter in (self._waiter, self._secured):
            if waiter is not None and not waiter.called:
                waiter.callback(None)
        if self._on_lost is not None:
            self._on_lost(reason)

    def _arm(self) -> None:
        if self._idle is not None and self._idle.active():
            self._idle.cancel()
        self._idle = None
        if self._idle_timeout_s and self.lost is None:
            self._idle = self._reactor.callLater(self._idle_timeout_s, self._silent)

    def _silent(self) -> None:
        self._end(f"{self.peer} was silent for {self._idle_timeout_s:g} s")
        if self.transport is not None:
            self.tcp.abortConnection()


def plain_address(address: str) -> str:
    """An address without zone, and IPv4 for an IPv4-mapped IPv6 address."""
    parsed = ip_address(address.partition("%")[0])
    mapped = getattr(parsed, "ipv4_mapped", None)
    return str(mapped or parsed)
