"""What the runners of both sides share: carry out a machine's effects, keep the record, talk to the peer."""

from __future__ import annotations

import enum
import hmac
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from typing import Generic, Protocol, TypeVar

from attrs import evolve, frozen
from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.task import LoopingCall, deferLater
from twisted.logger import Logger

from relocd.daemon.background import RETRY_FIRST_S, RETRY_LAST_S, background, insist
from relocd.daemon.calling import call
from relocd.daemon.carriers import Carrier
from relocd.daemon.connect import Peer, expect, greet
from relocd.daemon.context import Context
from relocd.daemon.dialogue import Dialogue
from relocd.daemon.order import Rule, name_of
from relocd.errors import JournalError, ProtocolError, RelocdError, Untrusted
from relocd.handover.machine import Failure
from relocd.handover.record import Mark, Record
from relocd.handover.timeline import MomentKind, Timeline
from relocd.model import DomainConfig
from relocd.preflight.result import Check
from relocd.wire.messages import Decision, Inquire, Message, Standing

#: How long a complaint about lanes or stream waits for the peer's own explanation, the better one, in seconds.
EXPLANATION_WAIT_S = 0.3

EffectT = TypeVar("EffectT", bound=enum.StrEnum)
DoneT_co = TypeVar("DoneT_co", bound=enum.StrEnum, covariant=True)

#: How often both sides measure, and let the other one hear that they are there, in seconds.
TICK_S = 0.5


class Handover(Protocol[DoneT_co]):
    """What a runner needs of SourceHandover and TargetHandover."""

    failure: Failure | None

    @property
    def state(self) -> enum.StrEnum: ...

    def fail(self, failure: Failure) -> tuple[DoneT_co, ...] | None: ...


@frozen
class Word:
    """What the peer said when it was last asked, and when (Unix time); or why it did not answer."""

    at_s: float
    decision: Decision | None
    text: str = ""


class Runner(ABC, Generic[EffectT]):
    """One relocation on one side. Subclasses hear events, feed their machine, and say how each effect is done."""

    log = Logger()
    handover: Handover[EffectT]

    def __init__(self, context: Context, record: Record) -> None:
        self.id = record.relocation
        self.timeline = Timeline()
        self.word: Word | None = None
        self.over: Deferred[None] = Deferred()
        self._context = context
        self._record = record
        self._dialogue: Dialogue | None = None
        self._carrier: Carrier | None = None
        self._turn = DeferredLock()
        self._halted = False
        self._noted_state = ""
        self._asked_s = -RETRY_FIRST_S  # never yet
        self._ticker = LoopingCall(self._tick)
        self._ticker.clock = context.reactor

    @property
    def record(self) -> Record:
        """What the journal holds of it."""
        return self._record

    @property
    def domain(self) -> DomainConfig:
        return self._record.domain

    @property
    def connected(self) -> bool:
        """Is there a dialogue with the peer?"""
        return self._dialogue is not None

    # -- for subclasses to say -------------------------------------------------------------------------------------

    @abstractmethod
    def _effect_table(self) -> Mapping[EffectT, Callable[[], Awaitable[None]]]:
        """How each effect is done."""

    @property
    @abstractmethod
    def _rule(self) -> Rule:
        """What may be heard now."""

    @abstractmethod
    def _message(self, message: Message) -> None:
        """The peer said something that may be heard now."""

    @abstractmethod
    def _link_lost(self, reason: str) -> None:
        """The dialogue's connection is gone."""

    @abstractmethod
    def _hear(self, decision: Decision) -> None:
        """The peer says, asked over a new connection, what it knows."""

    @abstractmethod
    def _tick(self) -> None:
        """Called regularly: measure, and tell the peer."""

    @property
    @abstractmethod
    def waiting(self) -> bool:
        """Does this side depend on the peer's word about the decision?"""

    @abstractmethod
    def details(self) -> dict[str, object]:
        """What only this side's ``relocctl status`` shows (docs/control.md)."""

    @abstractmethod
    def standing(self) -> Decision:
        """What the peer is told when it asks."""

    @abstractmethod
    def cancel(self, why: Failure) -> bool:
        """End the relocation if it is not decided yet; says whether that was possible."""

    @abstractmethod
    def decide(self, *, resume_here: bool) -> bool:
        """An operator decides what the peer cannot be asked any more; says whether that means something now."""

    # -- effects ---------------------------------------------------------------------------------------------------

    def _take(self, effects: tuple[EffectT, ...] | None) -> None:
        """Carry out what the machine wants."""
        if effects:
            state = self.handover.state.value
            self.log.info("{id}: {state}: {effects}", id=self.id, state=state, effects=", ".join(effects))
            if state != self._noted_state:
                self._noted_state = state
                self.note(MomentKind.STATE, state=state)
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

    async def _fail_late(self, failure: Failure) -> None:
        await deferLater(self._context.reactor, EXPLANATION_WAIT_S)
        self._fail(failure)

    async def _patient(self, work: Awaitable[None]) -> None:
        """What breaks with lanes or stream is often the echo of a failure elsewhere, whose reason is on its way."""
        try:
            await work
        except RelocdError:
            await deferLater(self._context.reactor, EXPLANATION_WAIT_S)
            raise

    def _fail(self, failure: Failure) -> None:
        effects = self.handover.fail(failure)
        if effects is not None:
            self._note_failure(failure)
        self._take(effects)

    def _note_failure(self, failure: Failure) -> None:
        self.log.warn("{id}: {text}", id=self.id, text=failure.text)
        self.note(MomentKind.FAILURE, code=failure.code, text=failure.text)

    def domain_gone(self, reason: str) -> None:
        """The driver says that the domain ended by itself while it was on its way."""
        self._fail(Failure("hypervisor", f"the domain ended during its relocation: {reason}"))

    # -- the peer --------------------------------------------------------------------------------------------------

    def attach(self, dialogue: Dialogue) -> None:
        """Go on over this connection; an earlier one is closed."""
        if self._dialogue is not None and self._dialogue is not dialogue:
            self._dialogue.close()
        self._dialogue = dialogue
        dialogue.set_deadline(0)
        dialogue.set_idle_timeout(self._context.config.idle_timeout_s)
        if not self._ticker.running:
            self._ticker.start(TICK_S, now=False)
        dialogue.listen(self._hear_message, self._link_lost)

    def _hear_message(self, message: Message) -> None:
        """What has no meaning at this point is a breach (relocd.daemon.order)."""
        if type(message) in self._rule.kinds and self._is_ours(message):
            self._message(message)
        else:
            self._breach(message)

    def _is_ours(self, message: Message) -> bool:
        """Whoever speaks of a relocation here must mean this one, and whoever asks must know its token."""
        if isinstance(message, Inquire):
            return message.relocation == self.id and self.token_matches(message.token)
        return not isinstance(message, Standing) or message.relocation == self.id

    def _breach(self, message: Message) -> None:
        text = f"'{name_of(message)}' has no meaning at this point ({self.handover.state.value})"
        if self._rule.breach_ends_relocation:
            self._fail(Failure("protocol", f"{self._record.peer_host} broke the protocol: {text}"))
        elif self._dialogue is not None:
            self._dialogue.breach(ProtocolError(text))

    def check_secure(self, dialogue: Dialogue) -> None:
        """Raises Untrusted if the relocation was over TLS and this connection is not."""
        if self._record.secure and dialogue.channel is None:
            raise Untrusted(
                f"relocation {self.id} began over TLS and is not continued without",
                hint="See that both hosts have a valid certificate ('relocctl tls show').",
            )

    def token_matches(self, token: str) -> bool:
        """Does a peer that names this relocation know its token?"""
        own = self._record.token
        return bool(own) and hmac.compare_digest(token.encode(), own.encode())

    def _tell(self, message: Message) -> None:
        if self._dialogue is not None:
            self._dialogue.send(message)

    def _answer(self, question: Inquire) -> None:
        self._tell(Standing(question.relocation, self.standing()))

    async def _ask_without_end(self, pause_s: float) -> None:
        """Ask until the answer decides or the peer is connected again. The pauses grow up to RETRY_LAST_S.

        A peer that answers and hangs up each time is not asked more often than one that does not answer.
        """
        while self._must_ask:
            since_s = self._context.reactor.seconds() - self._asked_s
            await deferLater(self._context.reactor, max(pause_s, RETRY_FIRST_S - since_s))
            self._asked_s = self._context.reactor.seconds()
            pause_s = max(RETRY_FIRST_S, min(pause_s * 2, RETRY_LAST_S))
            if self._must_ask:
                try:
                    await self.ask()
                except RelocdError as error:
                    self.log.warn("{id}: the peer does not answer: {error}", id=self.id, error=error)

    @property
    def _must_ask(self) -> bool:
        return self.waiting and not self.connected and not self._halted

    async def ask(self) -> Decision:
        """Connect to the peer anew, ask what it knows, and act on it. Raises RelocdError if it does not answer.

        The connection is kept if the peer's own half of the relocation is alive and has not decided.
        """
        try:
            decision, dialogue = await self._inquire()
        except RelocdError as error:
            self._note_word(None, str(error))
            raise
        self._note_word(decision)
        if self.waiting and decision in (Decision.PREPARED, Decision.COMMITTED, Decision.UNDECIDED):
            self.attach(dialogue)
        else:
            dialogue.close()
        self._hear(decision)
        return decision

    async def _inquire(self) -> tuple[Decision, Dialogue]:
        timeout_s = self._context.config.connect_timeout_s
        peer = Peer(self._record.peer_host, self._record.peer_port)
        dialogue = await call(self._context, peer, secure=self._record.secure)
        try:
            await greet(dialogue, self._context.hello(), timeout_s)
            dialogue.send(Inquire(self.id, self._record.token))
            standing = expect(await dialogue.receive(timeout_s), Standing, dialogue.peer)
        except BaseException:
            dialogue.close()
            raise
        return standing.decision, dialogue

    def _note_word(self, decision: Decision | None, text: str = "") -> None:
        before, self.word = self.word, Word(time.time(), decision, text)
        if before is None or (before.decision, before.text) != (decision, text):
            says = decision.value if decision else None
            self.log.info("{id}: the peer says: {says}", id=self.id, says=says or text)
            self.note(MomentKind.PEER, says=says, text=text)

    # -- record, timeline and carrier ------------------------------------------------------------------------------

    def note(self, kind: MomentKind, **detail: object) -> None:
        """Put something in the timeline; it is on disk with the next decision."""
        self.timeline.add(time.time(), kind, **detail)

    def _note_checks(self, checks: tuple[Check, ...]) -> None:
        """All that preflight has said."""
        rows = [{"check": c.name, "verdict": c.verdict.value, "text": c.text} for c in checks]
        self.note(MomentKind.CHECKS, checks=rows)

    async def _mark(self, mark: Mark, outcome: dict[str, object] | None = None) -> None:
        """Put a decision on disk. Raises JournalError, and nothing has changed then."""
        record = evolve(self._record, mark=mark, outcome=outcome or {})
        moments = self.timeline.take_new()
        try:
            await self._context.journal.write(record, moments)
        except JournalError:
            self.timeline.give_back(moments)
            raise
        self._record = record

    async def _mark_surely(self, mark: Mark, outcome: dict[str, object] | None = None) -> None:
        """Put on disk what has happened already, as often as it takes: a later daemon must not act on less."""
        what = f"{self.id}: writing '{mark.value}' to the journal"
        await insist(self._context.reactor, lambda: self._mark(mark, outcome), what)

    def _drop_carrier(self) -> None:
        if self._carrier is not None:
            self._carrier.close()
            self._carrier = None

    def halt(self) -> None:
        """The daemon stops: nothing more is asked, said or begun; the next one goes on from the disk."""
        self._halted = True
        self._leave()

    def _leave(self) -> None:
        """Let go of what the relocation held."""
        if self._ticker.running:
            self._ticker.stop()
        self._drop_carrier()
        if self._dialogue is not None:
            self._dialogue.close()
            self._dialogue = None
        if not self.over.called:
            self.over.callback(None)
