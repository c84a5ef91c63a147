"""A domain on its way out: carries out what the source's hand-over machine decides."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from uuid import uuid4

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import LoopingCall, deferLater

from relocd.carrier.control import CarrierEnded, CarrierFailed, CarrierProgress, Event
from relocd.daemon.background import RETRY_FIRST_S, RETRY_LAST_S, background, insist
from relocd.daemon.carriers import Carrier
from relocd.daemon.connect import Peer, connect, expect, greet, open_lane
from relocd.daemon.context import Context
from relocd.daemon.dialogue import Dialogue
from relocd.daemon.report import Ending, Report
from relocd.daemon.runner import Runner
from relocd.errors import (
    DriverError,
    JournalError,
    PeerUnreachable,
    ProtocolError,
    Refused,
    RelocdError,
    StreamError,
)
from relocd.handover.machine import Failure, Totals
from relocd.handover.record import Mark, Record, Role
from relocd.handover.source import SourceEffect, SourceEvent, SourceHandover, SourceState
from relocd.model import DomainConfig, OutcomeKind
from relocd.preflight.result import failures
from relocd.wire.messages import (
    Abort,
    Accept,
    Commit,
    Decision,
    Inquire,
    Intent,
    Lane,
    Message,
    Prepared,
    Problem,
    ProgressNote,
    Propose,
    Receiving,
    Refuse,
    Resumed,
    Switchover,
)

#: How often progress is measured and told, in seconds.
TICK_S = 0.5

#: An operator who waits is told "unknown" when the peer has not confirmed for this long; the daemon goes on asking.
UNKNOWN_AFTER_S = 30.0


class SourceRelocation(Runner[SourceEffect]):
    """One relocation, from the proposal to the stated outcome. ``done`` fires once, with the outcome."""

    handover: SourceHandover

    def __init__(
        self, context: Context, domain: DomainConfig, peer: Peer, *, live: bool, record: Record | None = None
    ) -> None:
        super().__init__(context, record.relocation if record else uuid4(), record)
        self.domain = domain
        self.peer = peer
        self.live = live
        self.report = Report(self.id, domain, peer.host, live)
        self.handover = SourceHandover()
        self.on_finish: Callable[[SourceRelocation], None] = lambda _: None
        self._outgoing = context.driver.outgoing(domain.uuid)
        self._target_receives = self._lanes_open = False
        self._timer: IDelayedCall | None = None
        self._unknown_timer: IDelayedCall | None = None
        self._ticker = LoopingCall(self._tick)
        self._ticker.clock = context.reactor

    def _effect_table(self) -> Mapping[SourceEffect, Callable[[], Awaitable[None]]]:
        return {
            SourceEffect.START_STREAM: self._start_stream,
            SourceEffect.SWITCH_OVER: self._switch_over,
            SourceEffect.TELL_SWITCHOVER: self._tell_switchover,
            SourceEffect.START_TIMER: self._start_timer,
            SourceEffect.STOP_TIMER: self._stop_timer,
            SourceEffect.WRITE_COMMITTED: self._write_committed,
            SourceEffect.TELL_COMMIT: self._tell_commit,
            SourceEffect.ASK_TARGET: self._ask_target,
            SourceEffect.RELEASE_COPY: self._release_copy,
            SourceEffect.WRITE_DONE: self._write_done,
            SourceEffect.TELL_ABORT: self._tell_abort,
            SourceEffect.BRING_BACK: self._bring_back,
            SourceEffect.WRITE_ABORTED: self._write_aborted,
            SourceEffect.FINISH: self._finish,
        }

    @classmethod
    def from_record(cls, context: Context, record: Record) -> SourceRelocation:
        """Take up a relocation that a former daemon began; ``recover`` then carries it to its end."""
        peer = Peer(record.peer_host, record.peer_port)
        self = cls(context, record.domain, peer, live=record.live, record=record)
        if record.mark is Mark.COMMITTED:
            self.handover = SourceHandover(SourceState.COMMITTED)
        return self

    # -- beginnings ------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Start a new relocation; listen to ``report`` for what comes of it."""
        self._spawn(self._open(), "opening")

    def recover(self) -> None:
        """Go on with a relocation of a former daemon: undecided ones are undone, decided ones are seen through."""
        if self.handover.state is SourceState.COMMITTED:
            self._event(SourceEvent.LINK_LOST)
        else:
            self._fail(Failure("internal", "relocd was restarted before the relocation was decided"))

    def cancel(self, why: Failure) -> bool:
        """End the relocation if it is not decided yet; says whether it was."""
        undecided = self.handover.undecided and self.handover.state is not SourceState.DECIDING
        if undecided:
            self._fail(why)
        return undecided

    async def _open(self) -> None:
        """Connect, propose, open the lanes, and get the boot files on their way."""
        timeout_s = self._context.config.connect_timeout_s
        self.report.phase("connect")
        self._carrier = Carrier.start(self._context.reactor, self._carrier_event)
        dialogue = self._dialogue = await connect(self._context.reactor, self.peer, timeout_s)
        if self.handover.state is not SourceState.OPENING:
            dialogue.close()
            return
        theirs = await greet(dialogue, self._context.hello(), timeout_s)
        self.report.phase("preflight")
        accept = await self._propose(dialogue, timeout_s)
        self._record = Record(
            relocation=self.id,
            role=Role.SOURCE,
            domain=self.domain,
            live=self.live,
            peer_host=dialogue.peer,
            peer_port=theirs.port or self.peer.port,
            token=accept.token,
            was_paused=self._outgoing.was_paused,
            mark=Mark.BEGUN,
            began_s=time.time(),
        )
        await self._context.journal.write(self._record)
        if self.handover.state is not SourceState.OPENING:
            return
        dialogue.listen(self._message, self._link_lost)
        dialogue.set_idle_timeout(self._context.config.idle_timeout_s)
        self._ticker.start(TICK_S, now=False)
        await self._patient(self._open_lanes(Peer(dialogue.peer, self.peer.port), accept, timeout_s))
        self._lanes_open = True
        self._stream_when_ready()

    async def _propose(self, dialogue: Dialogue, timeout_s: float) -> Accept:
        paused, lanes = self._outgoing.was_paused, self._context.config.lanes
        dialogue.send(Propose(self.id, Intent.MOVE, self.live, paused, lanes, self.domain))
        answer = await dialogue.receive(timeout_s)
        if isinstance(answer, Refuse):
            failed = failures(answer.checks)
            refused = Refused(
                tuple((check.name, check.text) for check in failed),
                by=self.peer.host,
                hint=" ".join(check.remedy for check in failed if check.remedy),
            )
            self.report.refused(refused)
            raise refused
        accept = expect(answer, Accept, dialogue.peer)
        if accept.relocation != self.id or accept.lanes > self._context.config.lanes:
            raise ProtocolError(f"{dialogue.peer} accepted something else than was proposed")
        return accept

    async def _open_lanes(self, peer: Peer, accept: Accept, timeout_s: float) -> None:
        files = [file for file in self.domain.boot_files if file.sha256 in accept.needed]
        if files:
            self.report.phase("files")
        lanes = []
        try:
            for number in range(accept.lanes):
                lane = Lane(self.id, accept.token, number)
                lanes.append(await open_lane(self._context.reactor, peer, lane, timeout_s))
            self._working_carrier().send_domain(lanes, files, self._context.boot_dir, self._context.config)
        finally:
            for sock in lanes:
                sock.close()

    # -- what is heard ---------------------------------------------------------------------------------------------

    def _message(self, message: Message) -> None:
        match message:
            case Receiving() if not self._target_receives:
                self._target_receives = True
                self._stream_when_ready()
            case ProgressNote():
                pass
            case Prepared(digest=digest, stream_bytes=stream_bytes):
                self._take_from_peer(self.handover.target_prepared(Totals(digest, stream_bytes)))
            case Resumed():
                self._event(SourceEvent.TARGET_RESUMED)
            case Abort(code=code, text=text):
                if self.handover.undecided:
                    self._fail(Failure(code, f"{self.peer.host}: {text}"))
                else:
                    self.handover.failure = Failure(code, f"{self.peer.host}: {text}")
                    self._event(SourceEvent.TARGET_WITHOUT_COPY)
            case Problem(text=text):
                self._fail(Failure("protocol", f"{self.peer.host} says: {text}"))
            case Inquire():
                self._answer(message)
            case _:
                self._breach()

    def _stream_when_ready(self) -> None:
        """The target may say that it receives while its answer to the last lane is still on its way here."""
        if self._target_receives and self._lanes_open:
            self._event(SourceEvent.TARGET_RECEIVING)

    def _take_from_peer(self, effects: tuple[SourceEffect, ...] | None) -> None:
        if effects is None:
            self._breach()
        else:
            self._take(effects)

    def _breach(self) -> None:
        self._fail(Failure("protocol", f"{self.peer.host} sent a message that has no meaning at this point"))

    def _link_lost(self, reason: str) -> None:
        self._dialogue = None
        effects = self.handover.handle(SourceEvent.LINK_LOST)
        if effects is not None:
            self.handover.failure = self.handover.failure or Failure("unreachable", reason)
            self.log.warn("{id}: {reason}", id=self.id, reason=reason)
            self._take(effects)

    def _carrier_event(self, event: Event) -> None:
        match event:
            case CarrierProgress():
                self._carried(event)
            case CarrierEnded(totals=totals, counters=counters):
                self._carried(counters)
                self._take(self.handover.stream_ended(Totals(totals.digest, totals.stream_bytes)))
            case CarrierFailed(code=PeerUnreachable.code, text=text):
                background(self._fail_late(Failure(PeerUnreachable.code, text)), "waiting for an explanation")
            case CarrierFailed(code=code, text=text):
                self._fail(Failure(code, text))
            case _:
                pass

    def _carried(self, counters: CarrierProgress) -> None:
        self.report.carried(counters.wire_bytes, counters.stream_bytes, counters.pages, counters.zero_pages)

    def _event(self, event: SourceEvent) -> None:
        self._take(self.handover.handle(event))

    # -- what is done ----------------------------------------------------------------------------------------------

    async def _start_stream(self) -> None:
        self.report.phase("memory")
        stream = await self._outgoing.start(
            live=self.live, downtime_limit_ms=self._context.config.max_downtime_ms
        )
        if not self.live:
            self.report.paused()
        try:
            self._working_carrier().stream(stream)
        finally:
            stream.close()
        self._spawn(self._patient(self._watch_paused()), "watching for the pause")
        self._spawn(self._patient(self._watch_finished()), "watching for the end")

    async def _watch_paused(self) -> None:
        await self._outgoing.paused()
        self.report.paused()
        self._event(SourceEvent.DOMAIN_PAUSED)

    async def _watch_finished(self) -> None:
        await self._outgoing.finished()
        self._take(self.handover.hypervisor_finished())
        self.report.progress(await self._outgoing.progress())

    async def _start_timer(self) -> None:
        limit_s = self._context.config.switchover_timeout_s
        self._timer = self._context.reactor.callLater(
            limit_s,
            self._fail,
            Failure(
                "timeout",
                f"{self.peer.host} was not ready {limit_s:g} s after the domain was paused",
                "The domain runs on here. Raise xen-relocation-switchover-timeout if the target is merely slow.",
            ),
        )

    async def _stop_timer(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()

    async def _switch_over(self) -> None:
        self.report.phase("switchover")
        await self._outgoing.switch_over()

    async def _tell_switchover(self) -> None:
        self._tell(Switchover())

    async def _write_committed(self) -> None:
        self.report.phase("commit")
        try:
            await self._mark(Mark.COMMITTED)
        except JournalError as error:
            self.handover.failure = Failure(error.code, str(error), error.hint)
            self._event(SourceEvent.COMMIT_NOT_WRITTEN)
        else:
            self._event(SourceEvent.COMMIT_WRITTEN)

    async def _tell_commit(self) -> None:
        self.report.phase("resume")
        if self._dialogue is None or self._dialogue.lost is not None:
            self._event(SourceEvent.LINK_LOST)
        else:
            self._tell(Commit())

    async def _ask_target(self) -> None:
        if self._unknown_timer is None:
            self._unknown_timer = self._context.reactor.callLater(UNKNOWN_AFTER_S, self.report.unknown)
        background(self._ask(), f"asking about relocation {self.id}")

    async def _ask(self) -> None:
        """Ask until the target answers with something that decides, without end."""
        pause_s = RETRY_FIRST_S
        while self.handover.state is SourceState.COMMITTED and self._dialogue is None:
            try:
                await self._ask_once()
            except RelocdError as error:
                self.log.warn("{id}: the target does not answer: {error}", id=self.id, error=error)
            await deferLater(self._context.reactor, pause_s)
            pause_s = min(pause_s * 2, RETRY_LAST_S)

    async def _ask_once(self) -> None:
        decision, dialogue = await self._inquire()
        if self.handover.state is not SourceState.COMMITTED:
            dialogue.close()  # the target has asked meanwhile, and all is said
            return
        self.attach(dialogue)
        meaning = {
            Decision.OWNED: SourceEvent.TARGET_RESUMED,
            Decision.PREPARED: SourceEvent.TARGET_PREPARED,
            Decision.ABORTED: SourceEvent.TARGET_WITHOUT_COPY,
        }
        if decision in meaning:
            self._event(meaning[decision])

    async def _release_copy(self) -> None:
        self.report.resumed()
        await insist(self._context.reactor, self._outgoing.release, f"{self.id}: removing the copy here")
        self._event(SourceEvent.COPY_RELEASED)

    async def _write_done(self) -> None:
        await self._mark(Mark.DONE, self.report.ended(OutcomeKind.COMPLETED, None))

    async def _tell_abort(self) -> None:
        failure = self._reason()
        self._tell(Abort(failure.code, failure.text))

    async def _bring_back(self) -> None:
        """The domain must run here again; a driver that cannot do it is asked again and again."""
        self._drop_carrier()
        await insist(self._context.reactor, self._outgoing.cancel, f"{self.id}: resuming the domain here")
        self._event(SourceEvent.DOMAIN_BACK)

    async def _write_aborted(self) -> None:
        kind = OutcomeKind.REFUSED if self.report.was_refused else OutcomeKind.FAILED
        outcome = self.report.ended(kind, self._reason())
        if self._record is not None:
            try:
                await self._mark(Mark.ABORTED, outcome)
            except JournalError as error:  # an undecided record means the same after a restart
                self.log.error("{id}: {error}", id=self.id, error=error)

    async def _finish(self) -> None:
        for timer in (self._timer, self._unknown_timer):
            if timer is not None and timer.active():
                timer.cancel()
        if self._ticker.running:
            self._ticker.stop()
        self._drop_carrier()
        if self._dialogue is not None:
            self._dialogue.close()
        self.on_finish(self)
        self.report.finish()

    # -- small things ----------------------------------------------------------------------------------------------

    def standing(self) -> Decision:
        """What the target is told when it asks."""
        if self.handover.undecided:
            return Decision.UNDECIDED
        if self.handover.state in (SourceState.UNDOING, SourceState.ABORTED):
            return Decision.ABORTED
        return Decision.COMMITTED

    def description(self) -> dict[str, object]:
        """See Runner.description."""
        return {
            **self.report.snapshot(),
            "event": "status",
            "role": Role.SOURCE.value,
            "domain": self.domain.name,
            "uuid": str(self.domain.uuid),
            "peer": self.peer.host,
            "state": self.handover.state.value,
            "connected": self._dialogue is not None,
        }

    @property
    def done(self) -> Deferred[Ending]:
        """Fires with the outcome, or with "unknown" when the peer has not confirmed for long."""
        return self.report.when_ended()

    def _reason(self) -> Failure:
        return self.handover.failure or Failure("internal", "no reason is known")

    def _working_carrier(self) -> Carrier:
        if self._carrier is None:
            raise StreamError("the carrier has ended")
        return self._carrier

    def _tick(self) -> None:
        background(self._measure(), "measuring progress")

    async def _measure(self) -> None:
        if self.handover.state is not SourceState.MOVING:
            self._tell(ProgressNote(0, 0, 0))
            return
        try:
            progress = await self._outgoing.progress()
        except DriverError:
            return  # the watchers hear of it too, and they decide
        self.report.progress(progress)
        self._tell(ProgressNote(progress.round, self.report.stream_bytes, progress.remaining_bytes))
