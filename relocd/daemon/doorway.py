"""The relocation port: judges a connection before it reads a byte, then lets its first message decide what it is.

The first byte says whether it is TLS. Then the certificate is judged, too, before any message is heard.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.internet.protocol import Factory, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from relocd.daemon.dialogue import Dialogue, plain_address
from relocd.daemon.gate import Admission, Gate
from relocd.daemon.trust import NO_TLS_HERE, Trust
from relocd.errors import Untrusted
from relocd.tls.channel import RECORD_HANDSHAKE, Channel
from relocd.wire.messages import Problem

if TYPE_CHECKING:
    from twisted.internet.protocol import Protocol

#: Starts a session on an admitted connection (relocd.daemon.session).
StartSession = Callable[[Dialogue], None]


class GuardedDialogue(Dialogue):
    """A dialogue that reads nothing until its peer is admitted."""

    def __init__(self, factory: DoorwayFactory, admission: Admission | None) -> None:
        super().__init__(factory.reactor, idle_timeout_s=factory.handshake_timeout_s)
        self._factory = factory
        self._admission = admission
        self._silent_so_far = True

    def connectionMade(self) -> None:
        super().connectionMade()
        self._factory.count += 1
        if self._admission is not None:
            self._factory.admit(self, self._admission)
            return
        self.tcp.stopReading()
        Deferred.fromCoroutine(self._factory.judge_names(self))

    def dataReceived(self, data: bytes) -> None:
        if self._silent_so_far and self.channel is None:
            self._silent_so_far = False
            if data[0] == RECORD_HANDSHAKE:
                if not self._begin_tls():
                    return
            else:
                self._factory.start_session(self)
        super().dataReceived(data)

    def _begin_tls(self) -> bool:
        credentials = self._factory.trust.credentials
        if credentials is None:  # in plain words: a peer that may do without TLS reads them
            self.send(Problem(NO_TLS_HERE.code, f"{NO_TLS_HERE}. {NO_TLS_HERE.hint}"))
            self.close()
            return False
        self.channel = Channel(credentials.server, server_side=True)
        return True

    def secured(self) -> None:
        Deferred.fromCoroutine(self._factory.judge_certificate(self))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._factory.count -= 1
        super().connectionLost(reason)


class DoorwayFactory(Factory):
    """Builds a dialogue for each connection, or none for a peer that is refused by its address alone."""

    log = Logger()
    noisy = False

    def __init__(
        self,
        reactor: IReactorTime,
        gate: Gate,
        start_session: StartSession,
        trust: Trust,
        *,
        max_connections: int,
        handshake_timeout_s: float,
    ) -> None:
        self.reactor = reactor
        self.handshake_timeout_s = handshake_timeout_s
        self.count = 0
        self.trust = trust
        self.start_session = start_session
        self._gate = gate
        self._max_connections = max_connections

    def buildProtocol(self, addr: IAddress | None) -> Protocol | None:
        """Refuse at once where that is possible; Twisted closes the connection when None is returned."""
        assert isinstance(addr, IPv4Address | IPv6Address)
        admission = self._gate.judge_address(plain_address(addr.host))
        if admission is not None and not admission.allowed:
            self._log_refusal(addr.host, admission.reason)
            return None
        if self.count >= self._max_connections:
            self._log_refusal(addr.host, f"{self.count} connections are open, the limit")
            return None
        return GuardedDialogue(self, admission)

    def admit(self, dialogue: GuardedDialogue, admission: Admission) -> None:
        """The peer may speak."""
        self.log.debug("admitted {peer}: {reason}", peer=dialogue.peer, reason=admission.reason)

    async def judge_certificate(self, dialogue: GuardedDialogue) -> None:
        """Hear a peer whose certificate is its own; tell another one what is wrong."""
        assert dialogue.channel is not None
        try:
            await self.trust.judge(dialogue.channel.peer_certificate(), dialogue.peer)
        except Untrusted as error:
            dialogue.refuse(error)
            return
        if dialogue.lost is None:
            self.start_session(dialogue)

    async def judge_names(self, dialogue: GuardedDialogue) -> None:
        """Finish the admission of a peer that no address pattern matched."""
        admission = await self._gate.judge_names(dialogue.peer)
        if dialogue.lost is not None:
            return
        if admission.allowed:
            dialogue.tcp.startReading()
            self.admit(dialogue, admission)
        else:
            self._log_refusal(dialogue.peer, admission.reason)
            dialogue.close()

    def _log_refusal(self, peer: str, reason: str) -> None:
        self.log.warn("refused a connection from {peer}: {reason}", peer=peer, reason=reason)
