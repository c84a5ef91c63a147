"""A domain on its way in: carries out what the target's hand-over machine decides."""

from __future__ import annotations

import socket
import time
from collections.abc import Awaitable, Callable, Mapping

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from relocd.carrier import control
from relocd.daemon.announcing import Welcome
from relocd.daemon.background import RETRY_FIRST_S, background, insist
from relocd.daemon.carriers import CarrierDied, closing_all
from relocd.daemon.context import Context
from relocd.daemon.dialogue import Dialogue
from relocd.daemon.lanes import ExpectedLanes
from relocd.daemon.loaded import require_loaded
from relocd.daemon.order import TARGET, TARGET_STANDING, Rule
from relocd.daemon.runner import Runner
from relocd.daemon.stall import StallWatch
from relocd.errors import JournalError, RelocdError, StreamError
from relocd.handover.machine import Failure, Totals
from relocd.handover.record import Mark, Record
from relocd.handover.target import TargetEffect, TargetEvent, TargetHandover, TargetState
from relocd.handover.timeline import MomentKind
from relocd.host.arrivals import Arrival
from relocd.model import BootFile
from relocd.pages.limits import stream_bytes_max
from relocd.preflight.result import Check
from relocd.wire.messages import (
    Abort,
    Accept,
    Commit,
    Decision,
    Inquire,
    Message,
    Prepared,
    Problem,
    ProgressNote,
    Receiving,
    Standing,
    Switchover,
)


class TargetRelocation(Runner[TargetEffect]):
    """One incoming relocation, from the acceptance to the domain running here or being gone again."""

    handover: TargetHandover

    def __init__(self, context: Context, record: Record, on_end: Callable[[TargetRelocation], None]) -> None:
        super().__init__(context, record)
        self.handover = TargetHandover()
        self._on_end = on_end
        self._incoming = context.driver.incoming(record.domain)
        self._lanes = ExpectedLanes("", 0, b"")
        self._lane_timer: IDelayedCall | None = None
        self._arrivals: list[Arrival] = []
        self._building: Deferred[None] | None = None
        self._stream: socket.socket | None = None
        self._channels = 0
        self._stream_bytes = 0
        self._totals: Totals | None = None
        self._may_have_run = False
        self.welcome = Welcome(context, record.domain)
        self._trouble = ""
        self._stall = StallWatch(context.reactor)
        self._stream_ended = False

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
            TargetEffect.WRITE_ARRIVED: self._write_arrived,
            TargetEffect.TELL_ABORT: self._tell_abort,
            TargetEffect.WRITE_UNDOING: self._write_undoing,
            TargetEffect.DISCARD: self._discard,
            TargetEffect.WRITE_ABORTED: self._write_aborted,
            TargetEffect.WRITE_LOST: self._write_lost,
            TargetEffect.TELL_LOST: self._tell_lost,
            TargetEffect.FINISH: self._finish,
        }

    # -- beginnings ------------------------------------------------------------------------------------------------

    async def accept(
        self,
        dialogue: Dialogue,
        lanes: int,
        channels: int,
        needed: tuple[BootFile, ...],
        checks: tuple[Check, ...],
        their_lanes: bytes,
    ) -> None:
        """Promise a place: from now on the source may connect its lanes, with that certificate if there is one; or
        one more than ``channels`` if there are any.
        """
        self._note_checks(checks)
        await self._mark(Mark.BEGUN)
        self._channels = channels
        lanes = 1 + channels if channels else lanes
        self._lanes = ExpectedLanes(self._record.token, lanes, their_lanes)
        self._carrier = self._context.carriers.take(self._carrier_event)
        self._arrivals = [Arrival.create(self._context.boot_dir, file) for file in needed]
        self._lane_timer = self._context.reactor.callLater(
            self._context.config.connect_timeout_s,
            self._fail,
            Failure("unreachable", "the source did not connect its lanes in time"),
        )
        self.attach(dialogue)
        digests = tuple(file.sha256 for file in needed)
        certificate = self._lanes.certificate
        dialogue.send(Accept(self.id, self._record.token, lanes, digests, checks, certificate, channels))
        if not needed:
            self._building = background(self._guard(self._build()), f"relocation {self.id}")

    def recover(self) -> None:
        """Go on with a relocation of a former daemon."""
        here = self._context.driver.get(self.domain.uuid) is not None
        self._may_have_run = self._record.mark is Mark.OWNED  # nobody knows how far the former daemon came
        if self._record.mark is not Mark.OWNED:
            self.handover.failure = Failure("internal", "relocd was restarted before the domain was received")
        self._take(self.handover.recover(self._record.mark, copy_here=here))

    def cancel(self, why: Failure) -> bool:
        """See Runner.cancel: what the source has been told to be prepared is the source's to give up."""
        early = self.handover.state in (TargetState.RESERVED, TargetState.RECEIVING, TargetState.CHECKING)
        if early:
            self.note(MomentKind.OPERATOR, does="cancel")
            self._fail(why)
        return early

    def decide(self, *, resume_here: bool) -> bool:
        """See Runner.decide."""
        event = TargetEvent.OPERATOR_RESUMES if resume_here else TargetEvent.OPERATOR_DISCARDS
        what = "resumes the copy here" if resume_here else "gives up the copy here"
        self.note(MomentKind.OPERATOR, does="resume-here" if resume_here else "discard")
        effects = self.handover.handle(event)
        if effects is None:
            return False
        self.handover.failure = Failure(
            "resolved", f"an operator {what} without the word of {self._record.peer_host}"
        )
        self._take(effects)
        return True

    async def require_loaded(self) -> None:
        """A copy that a former daemon received may be incomplete. Raises DriverError then."""
        await require_loaded(self._context, self._incoming, self.domain.name)

    def wants_lane(self, number: int, token: str, peer: str) -> bool:
        """Is a lane of this number still missing, does it know the token, and is it of the dialogue's host?"""
        if self.handover.state is not TargetState.RESERVED or self._dialogue is None:
            return False
        return self._dialogue.peer == peer and self._lanes.wants(number, token)

    def take_lane(self, number: int, sock: socket.socket) -> None:
        """A lane has connected; the last one starts the carrier's work."""
        self._lanes.take(number, sock)
        if self._lanes.complete:
            self._spawn(self._lanes_complete(), "joining lanes and stream")

    async def _lanes_complete(self) -> None:
        if self._lane_timer is not None and self._lane_timer.active():
            self._lane_timer.cancel()
        if self._carrier is None:
            raise StreamError("the carrier is gone")
        limit = stream_bytes_max(self.domain.memory_mib << 20, live=self._record.live)
        lanes, stream_format = self._lanes, self._context.driver.stream_format
        sockets, security, channels = lanes.sockets, lanes.security, self._channels
        self._carrier.receive_domain(sockets, self._arrivals, limit, security, stream_format, channels)
        self._lanes.close()
        await self._listen_when_ready()

    async def _build(self) -> None:
        """Build the domain, paused, unless the relocation ended while this was being got ready."""
        if self.handover.state is not TargetState.RESERVED:
            return
        self._stream = await self._incoming.prepare(self._context.config.disk_paths, self._channels)
        await self._listen_when_ready()

    async def _listen_when_ready(self) -> None:
        """Once the domain is built and all lanes are there, in whichever order: join them in the carrier."""
        if self._stream is None or not self._lanes.complete:
            return
        stream, self._stream = self._stream, None
        with stream, closing_all(self._incoming.channels()) as channels:
            if self._carrier is None:
                raise StreamError("the carrier is gone")
            memory = self._incoming.memory()
            if memory is not None:
                self._carrier.place_into(memory)
                self.log.info("{id}: pages go straight into the guest's memory", id=self.id)
            self._carrier.stream(stream, channels)
        self._spawn(self._patient(self._watch_loaded()), "loading")
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

    @property
    def _rule(self) -> Rule:
        return TARGET[self.handover.state]

    def _message(self, message: Message) -> None:
        match message:
            case ProgressNote() | Switchover():
                pass
            case Commit():
                self._event(TargetEvent.SOURCE_COMMITTED)
            case Abort(text=text):
                self._source_aborted(text)
            case Inquire():
                self._answer(message)
            case Problem(text=text):
                self._source_complains(text)
            case Standing(decision=decision):
                self._note_word(decision)
                self._hear(decision)
            case _:
                self._breach(message)

    def _source_aborted(self, text: str) -> None:
        self.handover.failure = self.handover.failure or Failure("cancelled", f"the source gave up: {text}")
        self._event(TargetEvent.SOURCE_ABORTED)

    def _source_complains(self, text: str) -> None:
        """It ends the connection with that. What it decides about a prepared copy is another question."""
        if self.handover.state is TargetState.PREPARED:
            self._dialogue = None
            self._event(TargetEvent.LINK_LOST)
        else:
            self._source_aborted(text)

    def _hear(self, decision: Decision) -> None:
        meaning = {
            Decision.COMMITTED: TargetEvent.SOURCE_COMMITTED,
            Decision.ABORTED: TargetEvent.SOURCE_ABORTED,
        }
        if decision in meaning:
            self._event(meaning[decision])

    def _link_lost(self, reason: str) -> None:
        self._dialogue = None
        self.handover.failure = self.handover.failure or Failure("unreachable", reason)
        self._event(TargetEvent.LINK_LOST)

    def _carrier_event(self, event: control.Event | CarrierDied) -> None:
        match event:
            case control.CarrierProgress(stream_bytes=stream_bytes, wire_bytes=wire_bytes):
                self._stream_bytes = stream_bytes
                self._stall.moved(wire_bytes)
            case control.CarrierEnded():
                self._stream_ended = True
            case control.CarrierFilesDone():
                if self._arrivals:
                    self._building = background(self._guard(self._admit_files()), f"relocation {self.id}")
            case control.CarrierDigest(totals=totals):
                self._totals = Totals(totals.digest, totals.stream_bytes)
                self._event(TargetEvent.DIGEST_KNOWN)
            case control.CarrierFailed(code=code, text=text):
                self._carrier_failed(Failure(code, text))
            case CarrierDied(text=text):
                self._carrier_failed(Failure(StreamError.code, text))
            case _:
                pass

    def _carrier_failed(self, failure: Failure) -> None:
        if self.handover.state is not TargetState.PREPARED:  # then it has done its work
            self._fail(failure)

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
        background(self._ask_without_end(RETRY_FIRST_S), f"asking about relocation {self.id}")

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
        if self.handover.state is not TargetState.RESUMING:
            return  # given up while this was waiting for its turn
        if self._context.driver.get(self.domain.uuid) is None:
            self._copy_is_gone()
            return
        self._may_have_run = True
        self.welcome.watch()
        try:
            await self._incoming.resume(paused=self._record.was_paused)
        except RelocdError as error:
            self.log.critical("{id}: the domain does not resume: {error}", id=self.id, error=error)
            self._trouble = str(error)
            self._event(TargetEvent.DOMAIN_DOES_NOT_RUN)
        else:
            self.welcome.begin()
            self._event(TargetEvent.DOMAIN_RUNS)

    def _copy_is_gone(self) -> None:
        if self._may_have_run:
            text = "the domain's hypervisor ended here before it was seen to run; it may have run"
            event = TargetEvent.COPY_LOST
        else:
            text = "the domain's hypervisor died before it could run here"
            event = TargetEvent.COPY_NEVER_RAN
        self.handover.failure = Failure("hypervisor", text)
        self._note_failure(self.handover.failure)
        self._event(event)

    async def _resume_later(self) -> None:
        await deferLater(self._context.reactor, RETRY_FIRST_S)
        await self._resume()

    async def _tell_resumed(self) -> None:
        self._tell(await self.welcome.told(connected=self.connected))

    async def _write_arrived(self) -> None:
        await self._mark_surely(Mark.ARRIVED, self._outcome("completed"))

    async def _tell_abort(self) -> None:
        reason = self._reason()
        self._tell(Abort(reason.code, reason.text))

    async def _write_undoing(self) -> None:
        await self._mark_surely(Mark.UNDOING)

    async def _discard(self) -> None:
        if self.handover.state not in (TargetState.DISCARDING, TargetState.GIVING_UP):
            return  # it came to run after all while this was waiting for its turn
        self._drop_carrier()
        if self._building is not None:
            await self._building  # what is half built cannot be removed yet
        await insist(self._context.reactor, self._incoming.discard, f"{self.id}: removing what was received")
        self._event(TargetEvent.DISCARDED)

    async def _write_aborted(self) -> None:
        await self._mark_surely(Mark.ABORTED, self._outcome("failed"))

    async def _write_lost(self) -> None:
        await self._mark_surely(Mark.LOST, self._outcome("lost"))

    async def _tell_lost(self) -> None:
        self._tell(Standing(self.id, Decision.LOST))

    def _reason(self) -> Failure:
        return self.handover.failure or Failure("internal", "no reason is known")

    def _outcome(self, kind: str) -> dict[str, object]:
        """What the history shows of this side."""
        failure = None if kind == "completed" else self._reason()
        return {
            "outcome": kind,
            "duration_s": round(time.time() - self._record.began_s, 3),
            "stream_bytes": self._stream_bytes,
            "first_frame_ms": self.welcome.first_frame_ms,
            "error": failure.text if failure else None,
            "code": failure.code if failure else None,
        }

    async def _finish(self) -> None:
        if self._lane_timer is not None and self._lane_timer.active():
            self._lane_timer.cancel()
        self._lanes.close()
        self.welcome.call_off()
        for arrival in self._arrivals:
            arrival.discard()
        if self._stream is not None:
            self._stream.close()
        self._on_end(self)
        self._leave()

    # -- small things ----------------------------------------------------------------------------------------------

    @property
    def waiting(self) -> bool:
        """See Runner.waiting."""
        return self.handover.state is TargetState.PREPARED

    def details(self) -> dict[str, object]:
        """See Runner.details."""
        return {"stream_bytes": self._stream_bytes, "trouble": self._trouble}

    def standing(self) -> Decision:
        """What the source is told when it asks."""
        return TARGET_STANDING[self.handover.state]

    @property
    def _lanes_due(self) -> bool:
        """Is it the source's turn to send something on the lanes: boot files, or the stream?"""
        if self.handover.state is TargetState.RESERVED:
            return self._lanes.complete and bool(self._arrivals)
        return self.handover.state is TargetState.RECEIVING and not self._stream_ended

    def _tick(self) -> None:
        self._tell(ProgressNote(0, self._stream_bytes, 0))
        if not self._lanes_due:
            self._stall.rest()
        elif still_s := self._stall.stalled_s(self._context.config.idle_timeout_s):
            self._fail(Failure("timeout", f"nothing came over the lanes for {still_s:.0f} s"))
