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

from relocd.config import Config
from relocd.daemon.crowd import Crowd, Guest, Stage
from relocd.daemon.dialogue import Dialogue, plain_address
from relocd.daemon.gate import Admission, Gate
from relocd.daemon.refusals import Refusals
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
        super().__init__(factory.reactor)
        self._factory = factory
        self._admission = admission
        self._silent_so_far = True
        self._guest: Guest | None = None

    def connectionMade(self) -> None:
        super().connectionMade()
        self.set_deadline(self._factory.handshake_timeout_s)
        stage = Stage.STRANGER if self._admission is None else Stage.GREETING
        self._guest = self._factory.crowd.enter(self.peer, stage)
        if self._admission is not None:
            self._factory.admit(self, self._admission)
            return
        self.tcp.stopReading()
        Deferred.fromCoroutine(self._factory.judge_names(self))

    def come(self, stage: Stage) -> None:
        """Count as one that is so far from now on."""
        if self._guest is not None:
            self._factory.crowd.move(self._guest, stage)

    def introduced(self) -> None:
        self.come(Stage.TALKING)

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
        if self._guest is not None:
            self._factory.crowd.leave(self._guest)
            self._guest = None
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
        config: Callable[[], Config],
    ) -> None:
        self.reactor = reactor
        self.crowd = Crowd(config)
        self.trust = trust
        self.start_session = start_session
        self._gate = gate
        self._config = config
        self._refusals = Refusals(reactor)

    @property
    def handshake_timeout_s(self) -> float:
        """For a peer to introduce itself, all in all."""
        return self._config().handshake_timeout_s

    def buildProtocol(self, addr: IAddress | None) -> Protocol | None:
        """Refuse at once where that is possible; Twisted closes the connection when None is returned."""
        assert isinstance(addr, IPv4Address | IPv6Address)
        peer = plain_address(addr.host)
        admission = self._gate.judge_address(peer)
        if admission is not None and not admission.allowed:
            self._refusals.note(peer, admission.reason)
            return None
        refusal = self.crowd.refusal(peer, Stage.STRANGER if admission is None else Stage.GREETING)
        if refusal:
            self._refusals.note(peer, refusal)
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
        refusal = self.crowd.refusal(dialogue.peer, Stage.GREETING) if admission.allowed else admission.reason
        if refusal:
            self._refusals.note(dialogue.peer, refusal)
            dialogue.close()
            return
        dialogue.come(Stage.GREETING)
        dialogue.tcp.startReading()
        self.admit(dialogue, admission)
