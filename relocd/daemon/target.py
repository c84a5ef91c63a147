"""A domain on its way in: carries out what the target's hand-over machine decides."""

from __future__ import annotations

import hmac
import secrets
import socket
import time
from collections.abc import Awaitable, Callable, Mapping

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import LoopingCall, deferLater
from twisted.internet.threads import deferToThread

from relocd.carrier.control import CarrierDigest, CarrierFailed, CarrierFilesDone, CarrierProgress, Event
from relocd.daemon.background import RETRY_FIRST_S, RETRY_LAST_S, background, insist
from relocd.daemon.carriers import Carrier
from relocd.daemon.context import Context
from relocd.daemon.dialogue import Dialogue
from relocd.daemon.runner import Runner
from relocd.errors import JournalError, RelocdError, StreamError
from relocd.handover.machine import Failure, Totals
from relocd.handover.record import Mark, Record, Role
from relocd.handover.target import TargetEffect, TargetEvent, TargetHandover, TargetState
from relocd.host.arrivals import Arrival
from relocd.model import BootFile, DomainConfig
from relocd.preflight.result import Check
from relocd.wire.messages import (
    Abort,
    Accept,
    Commit,
    Decision,
    Hello,
    Inquire,
    Message,
    Prepared,
    Problem,
    ProgressNote,
    Propose,
    Receiving,
    Resumed,
    Switchover,
)


class TargetRelocation(Runner[TargetEffect]):
    """One incoming relocation, from the acceptance to the domain running here or being gone again."""

    handover: TargetHandover
    _record: Record

    def __init__(self, context: Context, record: Record, on_end: Callable[[TargetRelocation], None]) -> None:
        super().__init__(context, record.relocation, record)
        self.handover = TargetHandover()
        self._on_end = on_end
        self._incoming = context.driver.incoming(record.domain)
        self._lanes: dict[int, socket.socket] = {}
        self._lane_count = 0
        self._lane_timer: IDelayedCall | None = None
        self._arrivals: list[Arrival] = []
        self._building: Deferred[None] | None = None
        self._stream: socket.socket | None = None
        self._stream_bytes = 0
        self._totals: Totals | None = None
        self._may_have_run = False
        self._ticker = LoopingCall(self._tick)
        self._ticker.clock = context.reactor

    def _effect_table(self) -> Mapping[TargetEffect, Callable[[], Awaitable[None]]]:
        return {
            TargetEffect.TELL_RECEIVING: self._tell_receiving,
            TargetEffect.ASK_DIGEST: self._ask_digest,
            TargetEffect.TELL_PREPARED: self._tell_prepared,
            TargetEffect.ASK_SOURCE: self._ask_source,
            TargetEffect.WRITE_OWNED: self._write_owned,
            TargetEffect.WRITE_OWNED_LATER: self._write_owned_later,
            TargetEffect.RESUME: self._resume,
            TargetEffect.RESUME_LATER: self._resume_later,
            TargetEffect.TELL_RESUMED: self._tell_resumed,
            TargetEffect.TELL_ABORT: self._tell_abort,
            TargetEffect.DISCARD: self._discard,
            TargetEffect.WRITE_ABORTED: self._write_aborted,
            TargetEffect.FINISH: self._finish,
        }

    @classmethod
    def record_for(cls, proposal: Propose, hello: Hello, dialogue: Dialogue) -> Record:
        """The journal's record of a proposal that is about to be accepted, with a fresh token."""
        return Record(
            relocation=proposal.relocation,
            role=Role.TARGET,
            domain=proposal.domain,
            live=proposal.live,
            peer_host=dialogue.peer,
            peer_port=hello.port,
            token=secrets.token_hex(16),
            was_paused=proposal.paused,
            mark=Mark.BEGUN,
            began_s=time.time(),
        )

    @property
    def domain(self) -> DomainConfig:
        return self._record.domain

    # -- beginnings ------------------------------------------------------------------------------------------------

    async def accept(
        self, dialogue: Dialogue, lanes: int, needed: tuple[BootFile, ...], checks: tuple[Check, ...]
    ) -> None:
        """Promise a place: from now on the source may connect its lanes."""
        await self._context.journal.write(self._record)
        self._lane_count = lanes
        self._carrier = Carrier.start(self._context.reactor, self._carrier_event)
        self._arrivals = [Arrival.create(self._context.boot_dir, file) for file in needed]
        self._lane_timer = self._context.reactor.callLater(
            self._context.config.connect_timeout_s,
            self._fail,
            Failure("unreachable", "the source did not connect its lanes in time"),
        )
        self._ticker.start(1.0, now=False)
        self.attach(dialogue)
        dialogue.set_idle_timeout(self._context.config.idle_timeout_s)
        digests = tuple(file.sha256 for file in needed)
        dialogue.send(Accept(self.id, self._record.token, lanes, digests, checks))
        if not needed:
            self._building = background(self._guard(self._build()), f"relocation {self.id}")

    def recover(self) -> None:
        """Go on with a relocation of a former daemon.

        An undecided one may be prepared and committed by now; only the source knows, so it is asked.
        """
        if self._record.mark is Mark.OWNED:
            self._may_have_run = True  # nobody knows how far the former daemon came
            self.handover = TargetHandover(TargetState.RESUMING)
            self._spawn(self._resume(), "resuming")
        elif self._context.driver.get(self.domain.uuid) is None:
            self.handover = TargetHandover(TargetState.RESERVED)
            self._fail(Failure("internal", "relocd was restarted and nothing was received"))
        else:
            self.handover = TargetHandover(TargetState.PREPARED)
            self._event(TargetEvent.LINK_LOST)

    def cancel(self, why: Failure) -> None:
        """Give up what the source has not been told to be prepared."""
        if self.handover.state in (TargetState.RESERVED, TargetState.RECEIVING, TargetState.CHECKING):
            self._fail(why)

    def wants_lane(self, number: int, token: str) -> bool:
        """Is a lane of this number still missing, and does the peer know the token?"""
        known = hmac.compare_digest(token.encode(), self._record.token.encode())
        return (
            known
            and self.handover.state is TargetState.RESERVED
            and number < self._lane_count
            and number not in self._lanes
        )

    def take_lane(self, number: int, sock: socket.socket) -> None:
        """A lane has connected; the last one starts the carrier's work."""
        self._lanes[number] = sock
        if len(self._lanes) < self._lane_count or self._carrier is None:
            return
        if self._lane_timer is not None and self._lane_timer.active():
            self._lane_timer.cancel()
        self._carrier.receive_domain(
            [self._lanes[index] for index in range(self._lane_count)], self._arrivals
        )
        for lane in self._lanes.values():
            lane.close()
        self._spawn(self._listen_when_ready(), "joining lanes and stream")

    async def _build(self) -> None:
        """Build the domain, paused, unless the relocation ended while this was being got ready."""
        if self.handover.state is not TargetState.RESERVED:
            return
        self._stream = await self._incoming.prepare()
        await self._listen_when_ready()

    async def _listen_when_ready(self) -> None:
        """Once the domain is built and all lanes are there, in whichever order: join them in the carrier."""
        if self._stream is None or len(self._lanes) < self._lane_count:
            return
        stream, self._stream = self._stream, None
        with stream:
            if self._carrier is None:
                raise StreamError("the carrier is gone")
            memory = self._incoming.memory()
            if memory is not None:
                self._carrier.place_into(memory)
            self._carrier.stream(stream)
        self._spawn(self._watch_loaded(), "loading")
        self._event(TargetEvent.LISTENING)

    async def _watch_loaded(self) -> None:
        await self._incoming.loaded()
        self._event(TargetEvent.LOADED)

    async def _admit_files(self) -> None:
        """Look at what arrived with our own eyes, then build the domain with it."""
        for arrival in self._arrivals:
            await deferToThread(arrival.admit)
        self._arrivals = []
        await self._build()

    # -- what is heard ---------------------------------------------------------------------------------------------

    def _message(self, message: Message) -> None:
        match message:
            case ProgressNote() | Switchover():
                pass
            case Commit():
                if self._event(TargetEvent.SOURCE_COMMITTED) is None and not self._owned:
                    self._fail(Failure("protocol", "the source committed before anything was prepared"))
            case Abort(text=text):
                self._source_aborted(text)
            case Inquire():
                self._answer(message)
            case Problem(text=text):
                self._source_aborted(text)
            case _:
                if not self._owned and self.handover.state is not TargetState.PREPARED:
                    self._fail(
                        Failure("protocol", "the source sent a message that has no meaning at this point")
                    )

    def _source_aborted(self, text: str) -> None:
        self.handover.failure = self.handover.failure or Failure("cancelled", f"the source gave up: {text}")
        self._event(TargetEvent.SOURCE_ABORTED)

    def _link_lost(self, reason: str) -> None:
        self._dialogue = None
        self.handover.failure = self.handover.failure or Failure("unreachable", reason)
        self._event(TargetEvent.LINK_LOST)

    def _carrier_event(self, event: Event) -> None:
        match event:
            case CarrierProgress(stream_bytes=stream_bytes):
                self._stream_bytes = stream_bytes
            case CarrierFilesDone():
                if self._arrivals:
                    self._building = background(self._guard(self._admit_files()), f"relocation {self.id}")
            case CarrierDigest(totals=totals):
                self._totals = Totals(totals.digest, totals.stream_bytes)
                self._event(TargetEvent.DIGEST_KNOWN)
            case CarrierFailed(code=code, text=text):
                if self.handover.state is not TargetState.PREPARED:
                    self._fail(Failure(code, text))
            case _:
                pass

    def _event(self, event: TargetEvent) -> tuple[TargetEffect, ...] | None:
        effects = self.handover.handle(event)
        self._take(effects)
        return effects

    # -- what is done ----------------------------------------------------------------------------------------------

    async def _tell_receiving(self) -> None:
        self._tell(Receiving())

    async def _ask_digest(self) -> None:
        if self._carrier is None:
            raise StreamError("the carrier is gone")
        self._carrier.ask_digest()

    async def _tell_prepared(self) -> None:
        assert self._totals is not None
        if self._dialogue is None:
            self._event(TargetEvent.LINK_LOST)
        else:
            self._tell(Prepared(self._totals.digest, self._totals.stream_bytes))

    async def _ask_source(self) -> None:
        self._drop_carrier()
        background(self._ask(), f"asking about relocation {self.id}")

    async def _ask(self) -> None:
        """Ask until the source answers with a decision, without end."""
        pause_s = RETRY_FIRST_S
        while self.handover.state is TargetState.PREPARED and self._dialogue is None:
            await deferLater(self._context.reactor, pause_s)
            pause_s = min(pause_s * 2, RETRY_LAST_S)
            try:
                await self._ask_once()
            except RelocdError as error:
                self.log.warn("{id}: the source does not answer: {error}", id=self.id, error=error)

    async def _ask_once(self) -> None:
        decision, dialogue = await self._inquire()
        if decision in (Decision.COMMITTED, Decision.UNDECIDED):
            self.attach(dialogue)
        else:
            dialogue.close()
        if decision is Decision.COMMITTED:
            self._event(TargetEvent.SOURCE_COMMITTED)
        elif decision is Decision.ABORTED:
            self._event(TargetEvent.SOURCE_ABORTED)

    async def _write_owned(self) -> None:
        try:
            await self._mark(Mark.OWNED)
        except JournalError as error:
            self.log.critical("{id}: the domain is ours, but: {error}", id=self.id, error=error)
            self._event(TargetEvent.OWNED_NOT_WRITTEN)
        else:
            self._event(TargetEvent.OWNED_WRITTEN)

    async def _write_owned_later(self) -> None:
        await deferLater(self._context.reactor, RETRY_FIRST_S)
        await self._write_owned()

    async def _resume(self) -> None:
        if not self._may_have_run and self._context.driver.get(self.domain.uuid) is None:
            self.handover.failure = Failure(
                "hypervisor", "the domain's hypervisor died before it could run here"
            )
            self._event(TargetEvent.COPY_LOST)
            return
        self._may_have_run = True
        try:
            await self._incoming.resume(paused=self._record.was_paused)
        except RelocdError as error:
            self.log.critical("{id}: the domain does not resume: {error}", id=self.id, error=error)
            self._event(TargetEvent.DOMAIN_DOES_NOT_RUN)
        else:
            self._event(TargetEvent.DOMAIN_RUNS)

    async def _resume_later(self) -> None:
        await deferLater(self._context.reactor, RETRY_FIRST_S)
        await self._resume()

    async def _tell_resumed(self) -> None:
        self._tell(Resumed())
        await self._mark(Mark.OWNED, {"outcome": "completed"})

    async def _tell_abort(self) -> None:
        failure = self.handover.failure or Failure("internal", "no reason is known")
        self._tell(Abort(failure.code, failure.text))

    async def _discard(self) -> None:
        self._drop_carrier()
        if self._building is not None:
            await self._building  # what is half built cannot be removed yet
        await insist(self._context.reactor, self._incoming.discard, f"{self.id}: removing what was received")
        self._event(TargetEvent.DISCARDED)

    async def _write_aborted(self) -> None:
        reason = self.handover.failure.text if self.handover.failure else ""
        try:
            await self._mark(Mark.ABORTED, {"outcome": "failed", "error": reason})
        except JournalError as error:  # an undecided record leads to the same end after a restart
            self.log.error("{id}: {error}", id=self.id, error=error)

    async def _finish(self) -> None:
        if self._lane_timer is not None and self._lane_timer.active():
            self._lane_timer.cancel()
        if self._ticker.running:
            self._ticker.stop()
        self._drop_carrier()
        for lane in self._lanes.values():
            lane.close()
        for arrival in self._arrivals:
            arrival.discard()
        if self._stream is not None:
            self._stream.close()
        if self._dialogue is not None:
            self._dialogue.close()
        self._on_end(self)

    # -- small things ----------------------------------------------------------------------------------------------

    @property
    def _owned(self) -> bool:
        return self.handover.state in (TargetState.OWNING, TargetState.RESUMING, TargetState.DONE)

    def description(self) -> dict[str, object]:
        """See Runner.description."""
        return {
            "event": "status",
            "relocation": str(self.id),
            "role": Role.TARGET.value,
            "domain": self.domain.name,
            "uuid": str(self.domain.uuid),
            "peer": self._record.peer_host,
            "state": self.handover.state.value,
            "connected": self._dialogue is not None,
        }

    def standing(self) -> Decision:
        """What the source is told when it asks."""
        if self.handover.state is TargetState.DONE:
            return Decision.OWNED
        if self._owned:
            return Decision.COMMITTED
        if self.handover.state is TargetState.PREPARED:
            return Decision.PREPARED
        if self.handover.state in (TargetState.DISCARDING, TargetState.DISCARDED):
            return Decision.ABORTED
        return Decision.UNDECIDED

    def _tick(self) -> None:
        if self.handover.state in (TargetState.RESERVED, TargetState.RECEIVING):
            self._tell(ProgressNote(0, self._stream_bytes, 0))
