"""A domain on its way out: carries out what the source's hand-over machine decides."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall

from relocd.carrier.control import CarrierEnded, CarrierFailed, CarrierProgress, Event
from relocd.daemon.background import background, insist
from relocd.daemon.carriers import Carrier, CarrierDied
from relocd.daemon.connect import Peer
from relocd.daemon.context import Context
from relocd.daemon.facts import source_facts
from relocd.daemon.opening import Promise, ask_for_place, open_lanes
from relocd.daemon.order import SOURCE, Rule
from relocd.daemon.report import Ending, Report
from relocd.daemon.runner import Runner
from relocd.daemon.steering import Controls, Steering
from relocd.errors import JournalError, Refused, StreamError
from relocd.handover.machine import Failure, Totals
from relocd.handover.record import Mark, Record
from relocd.handover.source import SourceEffect, SourceEvent, SourceHandover, SourceState
from relocd.handover.timeline import MomentKind
from relocd.model import DomainState, OutcomeKind
from relocd.wire.messages import (
    Abort,
    Commit,
    Decision,
    Inquire,
    Intent,
    Message,
    Prepared,
    Problem,
    ProgressNote,
    Propose,
    Receiving,
    Resumed,
    Standing,
    Switchover,
)

#: An operator who waits is told "unknown" when the peer has not confirmed for this long; the daemon goes on asking.
UNKNOWN_AFTER_S = 30.0


class SourceRelocation(Runner[SourceEffect]):
    """One relocation, from the proposal to the stated outcome. ``done`` fires once, with the outcome."""

    handover: SourceHandover

    def __init__(self, context: Context, record: Record, host: str, controls: Controls) -> None:
        super().__init__(context, record)
        self.peer = Peer(host, record.peer_port)
        self.report = Report(record, host)
        self.handover = SourceHandover()
        self.on_finish: Callable[[SourceRelocation], None] = lambda _: None
        self._outgoing = context.driver.outgoing(record.domain.uuid)
        self._steering = Steering(context, controls, self._outgoing, self.report, self.note, self._fail)
        self._target_receives = self._lanes_open = False
        self._channels = 0
        self._timer: IDelayedCall | None = None
        self._unknown_timer: IDelayedCall | None = None
        self._decided_by_operator = False

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
            SourceEffect.WRITE_UNDOING: self._write_undoing,
            SourceEffect.BRING_BACK: self._bring_back,
            SourceEffect.WRITE_ABORTED: self._write_aborted,
            SourceEffect.FINISH: self._finish,
        }

    # -- beginnings ------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Start a new relocation; listen to ``report`` for what comes of it."""
        self._spawn(self._open(), "opening")

    def recover(self) -> None:
        """Go on with a relocation of a former daemon: undecided ones are undone, decided ones are seen through."""
        told = self._record.outcome
        why = Failure("internal", "relocd was restarted before the relocation was decided")
        if told.get("error"):
            why = Failure(str(told.get("code")), str(told["error"]), str(told.get("hint") or ""))
        domain = self._context.driver.get(self.domain.uuid)
        at_home = domain is not None and domain.state in (DomainState.RUNNING, DomainState.PAUSED)
        effects = self.handover.recover(self._record.mark, at_home=at_home)
        if self.handover.state is SourceState.UNDOING:
            self.handover.failure = why
            self._note_failure(why)
        self._take(effects)

    def cancel(self, why: Failure) -> bool:
        """See Runner.cancel."""
        undecided = self.handover.undecided and self.handover.state is not SourceState.DECIDING
        if undecided:
            self.note(MomentKind.OPERATOR, does="cancel")
            self._fail(why)
        return undecided

    def decide(self, *, resume_here: bool) -> bool:
        """See Runner.decide."""
        event = SourceEvent.OPERATOR_RESUMES if resume_here else SourceEvent.OPERATOR_DISCARDS
        effects = self.handover.handle(event)
        if effects is None:
            return False
        self._decided_by_operator = True
        what = "resumes the copy here" if resume_here else "gives up the copy here"
        self.handover.failure = Failure(
            "resolved", f"an operator {what} without the word of {self.peer.host}"
        )
        self.note(MomentKind.OPERATOR, does="resume-here" if resume_here else "discard")
        self._take(effects)
        return True

    def halt(self) -> None:
        """See Runner.halt; who waits for the outcome is told that it is not known."""
        self.report.unknown()
        super().halt()

    async def _open(self) -> None:
        """Get the target's promise, open the lanes, and get the boot files on their way."""
        await self._mark(Mark.BEGUN)
        await self._steering.turn(self._phase)
        if not self._opening:
            return  # ended meanwhile, as further below; what is on disk by then must stay
        self._carrier = self._context.carriers.take(self._carrier_event)
        promise = await self._ask_for_place()
        if not self._opening:
            promise.dialogue.close()
            return
        there, token = promise.questions_to, promise.accept.token
        secure = promise.dialogue.channel is not None
        self._channels = promise.accept.channels
        told = evolve(self._record, peer_host=there.host, peer_port=there.port, token=token)
        self._record = evolve(told, secure=secure)
        self.attach(promise.dialogue)
        await self._mark(Mark.BEGUN)
        if not self._opening:
            return
        await self._patient(self._open_lanes(Peer(there.host, self.peer.port), promise))
        self._lanes_open = True
        self._stream_when_ready()

    @property
    def _opening(self) -> bool:
        return self.handover.state is SourceState.OPENING

    async def _ask_for_place(self) -> Promise:
        record = self._record
        source = await source_facts(self._context, record.domain)
        proposal = Propose(self.id, Intent.MOVE, record.live, record.was_paused, 1, record.domain, source)
        proposal = evolve(proposal, channels=self._outgoing.channels_max)
        said, limit_bytes_s = (self._phase, self._note_checks), self._steering.limit_bytes_s
        try:
            return await ask_for_place(
                self._context, self.peer, proposal, lambda: self._opening, *said, limit_bytes_s
            )
        except Refused as refused:
            self.report.refused(refused)
            raise

    async def _open_lanes(self, peer: Peer, promise: Promise) -> None:
        files = [file for file in self.domain.boot_files if file.sha256 in promise.accept.needed]
        if files:
            self._phase("files")
        timeout_s = self._context.config.connect_timeout_s
        lanes = await open_lanes(self._context.reactor, peer, self.id, promise, timeout_s)
        try:
            carrier = self._working_carrier()
            config, boot_dir = self._context.config, self._context.boot_dir
            secret, stream_format = promise.security, self._context.driver.stream_format
            self.report.promised(self._channels)
            carrier.send_domain(lanes, files, boot_dir, config, secret, stream_format, self._channels)
            self._steering.sends(carrier)
        finally:
            for sock in lanes:
                sock.close()

    def _phase(self, name: str) -> None:
        self.note(MomentKind.PHASE, phase=name)
        self.report.phase(name)

    # -- what is heard ---------------------------------------------------------------------------------------------

    @property
    def _rule(self) -> Rule:
        return SOURCE[self.handover.state]

    def _message(self, message: Message) -> None:
        match message:
            case Receiving() if not self._target_receives:
                self._target_receives = True
                self._stream_when_ready()
            case ProgressNote():
                pass
            case Prepared(digest=digest, stream_bytes=stream_bytes):
                effects = self.handover.target_prepared(Totals(digest, stream_bytes))
                if effects is None and self.handover.state is SourceState.SWITCHING:
                    self._breach(message)
                self._take(effects)
            case Resumed():
                self.report.arrived(message.ran_us / 1e6, message.heard_us)
                self._event(SourceEvent.TARGET_RESUMED)
            case Abort(code=code, text=text):
                self._target_aborted(Failure(code, f"{self.peer.host}: {text}"))
            case Problem(text=text):
                self._fail(Failure("protocol", f"{self.peer.host} says: {text}"))
            case Inquire():
                self._answer(message)
            case Standing(decision=decision):
                self._note_word(decision)
                self._hear(decision)
            case _:
                self._breach(message)

    def _target_aborted(self, failure: Failure) -> None:
        if self.handover.undecided:
            self._fail(failure)
        elif (effects := self.handover.handle(SourceEvent.TARGET_WITHOUT_COPY)) is not None:
            self.handover.failure = failure  # else it is the echo of our own, whose reason is kept
            self._take(effects)

    def _hear(self, decision: Decision) -> None:
        meaning = {
            Decision.OWNED: SourceEvent.TARGET_RESUMED,
            Decision.PREPARED: SourceEvent.TARGET_PREPARED,
            Decision.ABORTED: SourceEvent.TARGET_WITHOUT_COPY,
            Decision.LOST: SourceEvent.TARGET_LOST_COPY,
        }
        if decision is Decision.ABORTED and self.waiting:
            self.handover.failure = Failure(
                "hypervisor", f"{self.peer.host}: its copy of the domain is gone and never ran"
            )
        if decision in meaning:
            self._event(meaning[decision])

    def _stream_when_ready(self) -> None:
        """The target may say that it receives while its answer to the last lane is still on its way here."""
        if self._target_receives and self._lanes_open:
            self._event(SourceEvent.TARGET_RECEIVING)

    def _link_lost(self, reason: str) -> None:
        self._dialogue = None
        effects = self.handover.handle(SourceEvent.LINK_LOST)
        if effects is not None:
            failure = Failure("unreachable", reason)
            self.handover.failure = self.handover.failure or failure
            self._note_failure(failure)
            self._take(effects)

    def _carrier_event(self, event: Event | CarrierDied) -> None:
        match event:
            case CarrierProgress():
                self.report.carried(event)
            case CarrierEnded(totals=totals, counters=counters):
                self.report.carried(counters)
                self._steering.has_sent()
                self._take(self.handover.stream_ended(Totals(totals.digest, totals.stream_bytes)))
            case CarrierDied(text=text):
                self._fail(Failure(StreamError.code, text))
            case CarrierFailed(code=code, text=text):
                background(self._fail_late(Failure(code, text)), "waiting for an explanation")
            case _:
                pass

    def _event(self, event: SourceEvent) -> None:
        self._take(self.handover.handle(event))

    # -- what is done ----------------------------------------------------------------------------------------------

    async def _start_stream(self) -> None:
        self._phase("memory")
        live = self._record.live
        await self._steering.start(self._working_carrier(), self._channels, live=live)
        if not live:
            self.report.paused()
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
        self._phase("switchover")
        await self._outgoing.switch_over()

    async def _tell_switchover(self) -> None:
        self._tell(Switchover())

    async def _write_committed(self) -> None:
        self._phase("commit")
        try:
            await self._mark(Mark.COMMITTED)
        except JournalError as error:
            self.handover.failure = Failure(error.code, str(error), error.hint)
            self._event(SourceEvent.COMMIT_NOT_WRITTEN)
        else:
            self._steering.decided()
            self._event(SourceEvent.COMMIT_WRITTEN)

    async def _tell_commit(self) -> None:
        self._phase("resume")
        if self._dialogue is None or self._dialogue.lost is not None:
            self._event(SourceEvent.LINK_LOST)
        else:
            self._tell(Commit())

    async def _ask_target(self) -> None:
        self._steering.end()  # nobody's turn depends on a peer that does not answer
        if self._unknown_timer is None:
            self._unknown_timer = self._context.reactor.callLater(UNKNOWN_AFTER_S, self.report.unknown)
        background(self._ask_without_end(0.0), f"asking about relocation {self.id}")

    async def _release_copy(self) -> None:
        self._steering.end()
        if not self._decided_by_operator:
            self.report.resumed()
        await insist(self._context.reactor, self._outgoing.release, f"{self.id}: removing the copy here")
        self._event(SourceEvent.COPY_RELEASED)

    async def _write_done(self) -> None:
        if self._decided_by_operator:
            outcome = self.report.ended(OutcomeKind.RESOLVED, self._reason())
        else:
            outcome = self.report.ended(OutcomeKind.COMPLETED, None)
        await self._end(Mark.DONE, outcome)

    async def _tell_abort(self) -> None:
        failure = self._reason()
        self._tell(Abort(failure.code, failure.text))

    async def _write_undoing(self) -> None:
        reason = self._reason()
        outcome: dict[str, object] = {"error": reason.text, "code": reason.code, "hint": reason.hint}
        await self._mark_surely(Mark.UNDOING, outcome)

    async def _bring_back(self) -> None:
        """The domain must run here again; a driver that cannot do it is asked again and again."""
        self._steering.end()
        self._drop_carrier()
        await insist(self._context.reactor, self._outgoing.cancel, f"{self.id}: resuming the domain here")
        if self._context.driver.get(self.domain.uuid) is None:
            reason = self._reason()
            self.handover.failure = evolve(reason, text=f"{reason.text}; the domain has ended here, too")
        self._event(SourceEvent.DOMAIN_BACK)

    async def _write_aborted(self) -> None:
        kind = OutcomeKind.REFUSED if self.report.was_refused else OutcomeKind.FAILED
        await self._end(Mark.ABORTED, self.report.ended(kind, self._reason()))

    async def _end(self, mark: Mark, outcome: dict[str, object]) -> None:
        """Have the end on disk: an open record is acted on after a restart. Nobody waits for a full disk."""
        try:
            await self._mark(mark, outcome)
        except JournalError:
            self.report.finish()
            await self._mark_surely(mark, outcome)

    async def _finish(self) -> None:
        for timer in (self._timer, self._unknown_timer):
            if timer is not None and timer.active():
                timer.cancel()
        self._steering.end()
        self.on_finish(self)
        self._leave()
        self.report.finish()

    # -- small things ----------------------------------------------------------------------------------------------

    def standing(self) -> Decision:
        """What the target is told when it asks."""
        if self.handover.undecided:
            return Decision.UNDECIDED
        if self.handover.state in (SourceState.UNDOING, SourceState.ABORTED):
            return Decision.ABORTED
        return Decision.COMMITTED

    @property
    def waiting(self) -> bool:
        """See Runner.waiting."""
        return self.handover.state is SourceState.COMMITTED

    def details(self) -> dict[str, object]:
        """See Runner.details."""
        return self.report.snapshot()

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
        progress = await self._steering.measure()
        if progress is not None:
            self._tell(ProgressNote(progress.round, self.report.stream_bytes, progress.remaining_bytes))
