"""One connection that speaks messages: bytes to messages and back, a queue or a handler, and the end of it."""

from __future__ import annotations

import socket
import ssl
from collections import deque
from collections.abc import Callable
from ipaddress import ip_address
from typing import TYPE_CHECKING, cast

from twisted.internet import defer
from twisted.internet.interfaces import IDelayedCall, IPushProducer, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.tcp import Connection
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from relocd.daemon.flow import UNREAD_BYTES_MAX, Pace
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

#: Seconds for a peer to take our last words, such as what it did wrong, before the connection is cut.
CLOSE_S = 5.0


@implementer(IPushProducer)
class Dialogue(Protocol):
    """A peer at the other end of a connection.

    Messages wait in an inbox until they are taken by ``receive`` or until a handler is set with ``listen``. There may
    be a bound for the peer's silence, and a deadline by which the whole conversation must be over. With ``channel``
    all of it goes through TLS.
    """

    log = Logger()

    def __init__(self, reactor: IReactorTime) -> None:
        self._reactor = reactor
        self._cutter = LineCutter()
        self._inbox: deque[Message] = deque()
        self._waiter: Deferred[None] | None = None
        self._handler: Callable[[Message], None] | None = None
        self._on_lost: Callable[[str], None] | None = None
        self._idle_timeout_s = 0.0
        self._idle: IDelayedCall | None = None
        self._deadline: IDelayedCall | None = None
        self._pace = Pace()
        self._closing = False  # nothing that comes now is heard
        self._behind = False  # the peer does not read as fast as we write
        self._unread_bytes = 0
        self._broken = ""
        self._secured: Deferred[None] | None = None
        self.channel: Channel | None = None
        self.distrust: Untrusted | None = None
        self.lost: str | None = None
        self.peer = self.address = "?"

    # -- what the owner calls --------------------------------------------------------------------------------------

    def send(self, message: Message) -> None:
        """Send a message; silently nothing once the connection is lost."""
        self.send_bytes(encode(message))

    def send_bytes(self, data: bytes) -> None:
        """Send text for a person."""
        if self.lost is None and not self._closing and self.transport is not None:
            if self.channel is None:
                self._write(data)
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
        try:
            while self._inbox and self._handler is handler:
                handler(self._inbox.popleft())
        except ProtocolError as error:
            self.breach(error)
            return
        if self.lost is not None:
            on_lost(self.lost)

    def set_idle_timeout(self, seconds: float) -> None:
        """Bound the time between two messages of the peer from now on; 0 lifts the bound."""
        self._idle_timeout_s = seconds
        self._arm()

    def set_deadline(self, seconds: float) -> None:
        """End the connection after this time, whatever the peer does until then; 0 lifts the bound."""
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()
        self._deadline = self._reactor.callLater(seconds, self._overdue, seconds) if seconds else None

    def close(self) -> None:
        """Send what is pending, then end the connection. The owner hears nothing more."""
        self._handler = self._on_lost = None
        if self.transport is not None and self.lost is None and not self._closing:
            if self.channel is not None:
                self.channel.end()
                self._flush(self.channel)
            self._hang_up()

    @property
    def tcp(self) -> Connection:
        """The transport, with what only TCP has."""
        return cast(Connection, self.transport)

    @property
    def pending_bytes(self) -> int:
        """Bytes received that are not a whole line yet."""
        return self._cutter.pending

    # -- what Twisted calls ----------------------------------------------------------------------------------------

    def connectionMade(self) -> None:
        """Name the peer, make a dead link noticeable."""
        self.peer = plain_address(self.tcp.getPeer().host)
        self.address = plain_address(
            self.tcp.getHost().host
        )  # which nobody can tell once the connection is lost
        self.tcp.setTcpNoDelay(True)
        self.tcp.setTcpKeepAlive(True)
        handle = self.tcp.getHandle()
        handle.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT_S * 1000)
        handle.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE_S)
        handle.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_INTERVAL_S)
        self.tcp.registerProducer(self, True)

    def dataReceived(self, data: bytes) -> None:
        """Decrypt, cut, decode, deliver; a peer that breaks the protocol is told and left."""
        if self._closing:
            return
        if self.channel is not None:
            data = self._decrypt(self.channel, data)
            if not data:
                return
        try:
            for line in self._cutter.feed(data):
                self._pace.count(self._reactor.seconds(), len(line))
                if line.strip():
                    message = decode(line)
                    self._arm()
                    self._deliver(message)
                if self.lost is not None or self._closing:
                    return
        except ProtocolError as error:
            self.breach(error)

    def pauseProducing(self) -> None:
        """The peer does not read as fast as we write."""
        self._behind = True

    def resumeProducing(self) -> None:
        """It has caught up."""
        self._behind = False
        self._unread_bytes = 0

    def stopProducing(self) -> None:
        """The connection is gone."""

    def refuse(self, error: Untrusted) -> None:
        """Tell the peer why it is not heard, and end the connection."""
        self.send(Problem(error.code, f"{error}. {error.hint}"))
        self.distrustful(error)

    def breach(self, error: ProtocolError) -> None:
        """The peer said something it must not: tell it what, and end the connection."""
        if self._closing or self.lost is not None:
            return
        self.log.warn("peer {peer} broke the protocol: {error}", peer=self.peer, error=error)
        self.send(Problem(error.code, f"{error} {error.hint}".strip()))
        self._hang_up()
        self._end(f"{self.peer} broke the protocol: {error}")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The connection is gone, for whatever reason."""
        self.set_deadline(0)
        self._end(self._broken or f"the connection to {self.peer} was lost: {reason.getErrorMessage()}")

    def introduced(self) -> None:
        """The peer has said hello, and we understand each other."""

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
            self.tcp.unregisterProducer()
            self.tcp.loseConnection()
            self.set_deadline(CLOSE_S)
        return said if self.lost is None and not self._closing else b""

    def distrustful(self, error: Untrusted) -> None:
        """One of both sides does not trust the other: the connection ends with that."""
        self.log.warn("TLS with {peer}: {error}", peer=self.peer, error=error)
        self.distrust = error
        self._hang_up()
        self._end(str(error))

    def _flush(self, channel: Channel) -> None:
        if self.transport is not None and (data := channel.outgoing()):
            self._write(data)

    def _write(self, data: bytes) -> None:
        """Twisted says when the system takes no more; what gathers then is bounded."""
        self.tcp.write(data)
        if self._behind:
            self._unread_bytes += len(data)
            if self._unread_bytes > UNREAD_BYTES_MAX:
                self._abort(f"{self.peer} does not read what it is sent")

    def _hang_up(self) -> None:
        """End the connection when our last words are out, or when the peer has had its time to take them."""
        self._closing = True
        self.tcp.unregisterProducer()  # with one, Twisted may wait for it instead of closing
        self.tcp.loseConnection()
        self.set_deadline(CLOSE_S)

    def _abort(self, reason: str) -> None:
        """End the connection at once; the owner hears of it next."""
        self._closing, self._broken = True, reason
        self.tcp.abortConnection()

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
        self._over(f"{self.peer} was silent for {self._idle_timeout_s:g} s")

    def _overdue(self, seconds: float) -> None:
        self._over(f"{self.peer} took longer than {seconds:g} s")

    def _over(self, reason: str) -> None:
        self._end(reason)
        if self.transport is not None:
            self._abort(reason)


def plain_address(address: str) -> str:
    """An address without zone, and IPv4 for an IPv4-mapped IPv6 address."""
    parsed = ip_address(address.partition("%")[0])
    mapped = getattr(parsed, "ipv4_mapped", None)
    return str(mapped or parsed)
