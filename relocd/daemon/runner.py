"""What the runners of both sides share: carry out a machine's effects, keep the record, hold carrier and dialogue."""

from __future__ import annotations

import enum
import hmac
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from typing import Generic, Protocol, TypeVar
from uuid import UUID

from attrs import evolve
from twisted.internet.defer import DeferredLock
from twisted.internet.task import deferLater
from twisted.logger import Logger

from relocd.daemon.background import background
from relocd.daemon.carriers import Carrier
from relocd.daemon.connect import Peer, connect, expect, greet
from relocd.daemon.context import Context
from relocd.daemon.dialogue import Dialogue
from relocd.errors import RelocdError
from relocd.handover.machine import Failure
from relocd.handover.record import Mark, Record
from relocd.wire.messages import Decision, Inquire, Message, Standing

#: How long a complaint about lanes or stream waits for the peer's own explanation, the better one, in seconds.
EXPLANATION_WAIT_S = 0.3

EffectT = TypeVar("EffectT", bound=enum.StrEnum)
DoneT_co = TypeVar("DoneT_co", bound=enum.StrEnum, covariant=True)


class Handover(Protocol[DoneT_co]):
    """What a runner needs of SourceHandover and TargetHandover."""

    failure: Failure | None

    @property
    def state(self) -> enum.StrEnum: ...

    def fail(self, failure: Failure) -> tuple[DoneT_co, ...] | None: ...


class Runner(ABC, Generic[EffectT]):
    """One relocation on one side. Subclasses hear events, feed their machine, and say how each effect is done."""

    log = Logger()
    handover: Handover[EffectT]

    def __init__(self, context: Context, relocation: UUID, record: Record | None) -> None:
        self.id = relocation
        self._context = context
        self._record = record
        self._dialogue: Dialogue | None = None
        self._carrier: Carrier | None = None
        self._turn = DeferredLock()

    # -- for subclasses to say -------------------------------------------------------------------------------------

    @abstractmethod
    def _effect_table(self) -> Mapping[EffectT, Callable[[], Awaitable[None]]]:
        """How each effect is done."""

    @abstractmethod
    def _message(self, message: Message) -> None:
        """The peer said something."""

    @abstractmethod
    def _link_lost(self, reason: str) -> None:
        """The dialogue's connection is gone."""

    @abstractmethod
    def description(self) -> dict[str, object]:
        """This relocation as ``relocctl status`` shows it (docs/control.md)."""

    @abstractmethod
    def standing(self) -> Decision:
        """What the peer is told when it asks."""

    # -- effects ---------------------------------------------------------------------------------------------------

    def _take(self, effects: tuple[EffectT, ...] | None) -> None:
        """Carry out what the machine wants."""
        if effects:
            self.log.info(
                "{id}: {state}: {effects}",
                id=self.id,
                state=self.handover.state.value,
                effects=", ".join(effects),
            )
            self._turn.run(background, self._guard(self._perform(effects)), f"relocation {self.id}")

    async def _perform(self, effects: tuple[EffectT, ...]) -> None:
        """In their order, and only when those of earlier transitions are done: undoing waits for what it undoes."""
        table = self._effect_table()
        for effect in effects:
            await table[effect]()

    async def _guard(self, work: Awaitable[None]) -> None:
        """Whatever fails while that is possible ends the relocation."""
        try:
            await work
        except RelocdError as error:
            self._fail(Failure(error.code, str(error), error.hint))
        except Exception as error:
            self._fail(
                Failure("internal", f"internal error: {error!r}", "The log of this host has the details.")
            )
            raise

    def _spawn(self, work: Awaitable[None], what: str) -> None:
        """Do something beside the effects; its failure is the relocation's."""
        background(self._guard(work), f"relocation {self.id}: {what}")

    async def _patient(self, work: Awaitable[None]) -> None:
        """What breaks with lanes or stream is often the echo of a failure elsewhere, whose reason is on its way."""
        try:
            await work
        except RelocdError:
            await deferLater(self._context.reactor, EXPLANATION_WAIT_S)
            raise

    async def _fail_late(self, failure: Failure) -> None:
        await deferLater(self._context.reactor, EXPLANATION_WAIT_S)
        self._fail(failure)

    def _fail(self, failure: Failure) -> None:
        effects = self.handover.fail(failure)
        if effects is not None:
            self.log.warn("{id}: {text}", id=self.id, text=failure.text)
        self._take(effects)

    def domain_gone(self, reason: str) -> None:
        """The driver says that the domain ended by itself while it was on its way."""
        self._fail(Failure("hypervisor", f"the domain ended during its relocation: {reason}"))

    # -- the peer --------------------------------------------------------------------------------------------------

    def attach(self, dialogue: Dialogue) -> None:
        """Go on over this connection; an earlier one is closed."""
        if self._dialogue is not None:
            self._dialogue.close()
        self._dialogue = dialogue
        dialogue.set_idle_timeout(0)
        dialogue.listen(self._message, self._link_lost)

    def token_matches(self, token: str) -> bool:
        """Does a peer that names this relocation know its token?"""
        return self._record is not None and hmac.compare_digest(token.encode(), self._record.token.encode())

    def _tell(self, message: Message) -> None:
        if self._dialogue is not None:
            self._dialogue.send(message)

    def _answer(self, question: Inquire) -> None:
        self._tell(Standing(question.relocation, self.standing()))

    async def _inquire(self) -> tuple[Decision, Dialogue]:
        """Connect to the peer anew and ask what it knows. Raises RelocdError if it does not answer."""
        assert self._record is not None
        timeout_s = self._context.config.connect_timeout_s
        peer = Peer(self._record.peer_host, self._record.peer_port)
        dialogue = await connect(self._context.reactor, peer, timeout_s)
        try:
            await greet(dialogue, self._context.hello(), timeout_s)
            dialogue.send(Inquire(self.id, self._record.token))
            standing = expect(await dialogue.receive(timeout_s), Standing, dialogue.peer)
        except BaseException:
            dialogue.close()
            raise
        self.log.info("{id}: the peer says: {decision}", id=self.id, decision=standing.decision.value)
        return standing.decision, dialogue

    # -- record and carrier ----------------------------------------------------------------------------------------

    async def _mark(self, mark: Mark, outcome: dict[str, object] | None = None) -> None:
        """Put a decision on disk. Raises JournalError."""
        assert self._record is not None
        self._record = evolve(self._record, mark=mark, outcome=outcome or {})
        await self._context.journal.write(self._record)

    def _drop_carrier(self) -> None:
        if self._carrier is not None:
            self._carrier.close()
            self._carrier = None
