"""A world of two hosts for the hand-over machines: copies of one domain, two journals, a link that breaks.

It does what the shells in ``relocd.daemon`` do with the machines' effects, one effect at a time, so that a test can
crash either host between any two of them. Nothing here knows of real hypervisors or connections.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TypeVar

from relocd.handover.machine import Failure, Totals
from relocd.handover.record import Mark
from relocd.handover.source import SourceEffect, SourceEvent, SourceHandover, SourceState
from relocd.handover.target import TargetEffect, TargetEvent, TargetHandover, TargetState

EffectT = TypeVar("EffectT")

TOTALS = Totals("aa" * 16, 4096)
WHY = Failure("test", "a fault")


class World:
    """Both hosts once the target has accepted. A machine that is None: that daemon is down or done."""

    def __init__(self) -> None:
        self.source: SourceHandover | None = SourceHandover()
        self.target: TargetHandover | None = TargetHandover()
        self.source_up = self.target_up = True
        self.source_copy = "running"
        self.target_copy = "none"
        self.source_mark = self.target_mark = Mark.BEGUN
        self.target_loaded = False
        self.streaming = self.switched = False
        self.journal_fails = self.journal_lies = self.resume_fails = False
        self.link, self.closing = True, False
        self.to_source: deque[str] = deque()
        self.to_target: deque[str] = deque()
        self.source_todo: deque[SourceEffect] = deque()
        self.target_todo: deque[TargetEffect] = deque()
        self.source_asks = self.target_asks = False
        self.source_gone = self.target_gone = False
        self.copy_lost = self.copy_given_up = self.operator_said = False
        self.may_have_run = False
        self.trace: list[str] = []

    # -- what must always hold -------------------------------------------------------------------------------------

    def check(self) -> None:
        """Never two running; never a running copy on a host that does not own it; never no copy at all.

        A host that is gone for good took its copy along, and a hypervisor that ends takes the domain along: then the
        other copy must be kept, by a host that says so.
        """
        copies = (self.source_copy, self.target_copy)
        assert copies.count("running") <= 1, f"two copies run: {self.trace}"
        if not (self.source_gone or self.target_gone):
            assert set(copies) & {"running", "paused"}, f"no copy is left: {self.trace}"
        if self.copy_lost and not self.operator_said:
            assert self.source_copy != "running", f"a stale copy runs: {self.trace}"
        if self.target_copy == "running":
            assert self.target_mark in (Mark.OWNED, Mark.ARRIVED), self.trace
            assert self.source_mark in (Mark.COMMITTED, Mark.DONE) or self.source_gone, self.trace
        if self.source_copy == "gone" and not (self.source_gone or self.copy_given_up):
            assert self.target_mark in (Mark.OWNED, Mark.ARRIVED) or self.target_gone, self.trace

    # -- the source's shell ----------------------------------------------------------------------------------------

    def source_event(self, event: SourceEvent) -> None:
        if self.source is not None:
            self.trace.append(f"source hears {event}")
            self.source_todo.extend(self.source.handle(event) or ())

    def source_fails(self) -> None:
        if self.source is not None:
            self.trace.append("source fails")
            self.source_todo.extend(self.source.fail(WHY) or ())

    def source_step(self) -> None:
        """Carry out the source's next effect."""
        effect = self.source_todo.popleft()
        self.trace.append(f"source does {effect}")
        match effect:
            case SourceEffect.START_STREAM:
                self.streaming = True
            case SourceEffect.SWITCH_OVER:
                self.switched = True
            case SourceEffect.TELL_SWITCHOVER:
                self._tell(self.to_target, "switchover")
            case SourceEffect.WRITE_COMMITTED:
                self._write_committed()
            case SourceEffect.TELL_COMMIT:
                if self.link:
                    self._tell(self.to_target, "commit")
                else:
                    self.source_event(SourceEvent.LINK_LOST)
            case SourceEffect.ASK_TARGET:
                self.source_asks = True
            case SourceEffect.RELEASE_COPY:
                self.source_copy = "gone"
                self.source_event(SourceEvent.COPY_RELEASED)
            case SourceEffect.WRITE_DONE:
                self.source_mark = self._written(self.source_todo, effect, self.source_mark, Mark.DONE)
            case SourceEffect.TELL_ABORT:
                self._tell(self.to_target, "abort")
            case SourceEffect.WRITE_UNDOING:
                self.source_mark = self._written(self.source_todo, effect, self.source_mark, Mark.UNDOING)
            case SourceEffect.BRING_BACK:
                self.source_copy = "running"
                self.source_event(SourceEvent.DOMAIN_BACK)
            case SourceEffect.WRITE_ABORTED:
                self.source_mark = self._written(self.source_todo, effect, self.source_mark, Mark.ABORTED)
            case SourceEffect.FINISH:
                self.source = None
                self._close()

    def _written(self, todo: deque[EffectT], effect: EffectT, before: Mark, after: Mark) -> Mark:
        """A mark that must get on disk: on a full one it is tried again before anything else."""
        if not self.journal_fails:
            return after
        self.journal_fails = False
        todo.appendleft(effect)
        return before

    def _write_committed(self) -> None:
        if self.journal_lies:
            self.journal_lies = False
            self.source_mark = Mark.COMMITTED  # on disk, though the write was reported as failed
            self.source_event(SourceEvent.COMMIT_NOT_WRITTEN)
        elif self.journal_fails:
            self.journal_fails = False
            self.source_event(SourceEvent.COMMIT_NOT_WRITTEN)
        else:
            self.source_mark = Mark.COMMITTED
            self.source_event(SourceEvent.COMMIT_WRITTEN)

    def source_hears(self) -> None:
        """Deliver the oldest message to the source."""
        message = self.to_source.popleft()
        self.trace.append(f"source gets {message}")
        self._source_takes(message)
        self._close_when_empty()

    def _source_takes(self, message: str) -> None:
        machine = self.source
        if machine is None:
            return
        if message == "receiving":
            self._breach_unless(machine.handle(SourceEvent.TARGET_RECEIVING))
        elif message == "prepared":
            self._breach_unless(machine.target_prepared(TOTALS))
        elif message == "resumed":
            self.source_event(SourceEvent.TARGET_RESUMED)
        elif message == "abort":
            if machine.undecided:
                self.source_fails()
            else:
                self.source_event(SourceEvent.TARGET_WITHOUT_COPY)
        elif message == "lost":
            self.source_event(SourceEvent.TARGET_LOST_COPY)

    def _breach_unless(self, effects: tuple[SourceEffect, ...] | None) -> None:
        if effects is None:
            self.source_fails()
        else:
            self.source_todo.extend(effects)

    def domain_pauses(self) -> None:
        """The source's hypervisor reaches the switchover."""
        if (
            self.source is not None
            and self.source.state is SourceState.MOVING
            and self.source_copy == "running"
        ):
            self.source_copy = "paused"
            self.source_event(SourceEvent.DOMAIN_PAUSED)

    def stream_ends(self) -> None:
        """All is sent; the hypervisor on both sides is content."""
        if self.source is None or not self.switched or self.target_copy != "paused":
            return
        if self.source.state is SourceState.SWITCHING:
            self.source_todo.extend(self.source.stream_ended(TOTALS) or ())
            self.source_todo.extend(self.source.hypervisor_finished() or ())
        if not self.target_loaded and self.target is not None and self.target.state is TargetState.RECEIVING:
            self.target_loaded = True
            self.target_event(TargetEvent.LOADED)

    # -- the target's shell ----------------------------------------------------------------------------------------

    def target_event(self, event: TargetEvent) -> tuple[TargetEffect, ...] | None:
        if self.target is None:
            return None
        self.trace.append(f"target hears {event}")
        effects = self.target.handle(event)
        self.target_todo.extend(effects or ())
        return effects

    def target_builds(self) -> None:
        """The target's hypervisor has built the domain, paused."""
        if (
            self.target is not None
            and self.target.state is TargetState.RESERVED
            and self.target_copy == "none"
        ):
            self.target_copy = "paused"
            self.target_event(TargetEvent.LISTENING)

    def target_step(self) -> None:
        """Carry out the target's next effect."""
        effect = self.target_todo.popleft()
        self.trace.append(f"target does {effect}")
        match effect:
            case TargetEffect.TELL_RECEIVING:
                self._tell(self.to_source, "receiving")
            case TargetEffect.ASK_DIGEST:
                self.target_event(TargetEvent.DIGEST_KNOWN)
            case TargetEffect.TELL_PREPARED:
                if self.link:
                    self._tell(self.to_source, "prepared")
                else:
                    self.target_event(TargetEvent.LINK_LOST)
            case TargetEffect.ASK_SOURCE:
                self.target_asks = True
            case TargetEffect.WRITE_OWNED | TargetEffect.WRITE_OWNED_LATER:
                self._write_owned()
            case TargetEffect.RESUME | TargetEffect.RESUME_LATER:
                self._resume()
            case TargetEffect.TELL_RESUMED:
                self._tell(self.to_source, "resumed")
            case TargetEffect.WRITE_ARRIVED:
                self.target_mark = self._written(self.target_todo, effect, self.target_mark, Mark.ARRIVED)
            case TargetEffect.TELL_ABORT:
                self._tell(self.to_source, "abort")
            case TargetEffect.WRITE_UNDOING:
                self.target_mark = self._written(self.target_todo, effect, self.target_mark, Mark.UNDOING)
            case TargetEffect.DISCARD:
                self._discard()
            case TargetEffect.WRITE_ABORTED:
                self.target_mark = self._written(self.target_todo, effect, self.target_mark, Mark.ABORTED)
            case TargetEffect.WRITE_LOST:
                self.target_mark = self._written(self.target_todo, effect, self.target_mark, Mark.LOST)
            case TargetEffect.TELL_LOST:
                self._tell(self.to_source, "lost")
            case TargetEffect.FINISH:
                self.target = None
                self._close()

    def _resume(self) -> None:
        """The hypervisor may refuse; whoever retries finds out if it has died."""
        if self.target is None or self.target.state is not TargetState.RESUMING:
            return
        if self.target_copy == "none":
            lost = TargetEvent.COPY_LOST if self.may_have_run else TargetEvent.COPY_NEVER_RAN
            self.target_event(lost)
            return
        self.may_have_run = True
        if self.resume_fails:
            self.resume_fails = False
            self.target_event(TargetEvent.DOMAIN_DOES_NOT_RUN)
        else:
            self.target_copy = "running"
            self.target_event(TargetEvent.DOMAIN_RUNS)

    def _discard(self) -> None:
        if self.target is not None and self.target.state in (TargetState.DISCARDING, TargetState.GIVING_UP):
            self.target_copy = "none"
            self.target_loaded = False
            self.target_event(TargetEvent.DISCARDED)

    def _write_owned(self) -> None:
        if self.journal_fails:
            self.journal_fails = False
            self.target_event(TargetEvent.OWNED_NOT_WRITTEN)
        else:
            self.target_mark = Mark.OWNED
            self.target_event(TargetEvent.OWNED_WRITTEN)

    def target_hears(self) -> None:
        """Deliver the oldest message to the target."""
        message = self.to_target.popleft()
        self.trace.append(f"target gets {message}")
        if message == "commit":
            self.target_event(TargetEvent.SOURCE_COMMITTED)
        elif message == "abort":
            self.target_event(TargetEvent.SOURCE_ABORTED)
        self._close_when_empty()

    def target_copy_dies(self) -> None:
        """The target's hypervisor process is killed while the domain is paused in it."""
        if self.target_copy == "paused":
            self.trace.append("target's copy dies")
            self.copy_lost = self.target_mark is Mark.OWNED and self.may_have_run
            self.target_copy = "none"
            self.target_loaded = False
            if self.target is not None:
                self.target_todo.extend(self.target.fail(WHY) or ())

    # -- link and crashes ------------------------------------------------------------------------------------------

    def _tell(self, queue: deque[str], message: str) -> None:
        if self.link and not self.closing:
            queue.append(message)

    def _close(self) -> None:
        """One side is done and closes in good order: what is in flight still arrives."""
        self.closing = True
        self._close_when_empty()

    def _close_when_empty(self) -> None:
        if self.closing and not self.to_source and not self.to_target:
            self.cut()

    def cut(self) -> None:
        """The connection breaks; what is in flight is lost; both sides notice."""
        if not self.link:
            return
        self.trace.append("the link is cut")
        self.link = self.closing = False
        self.to_source.clear()
        self.to_target.clear()
        self.source_event(SourceEvent.LINK_LOST)
        self.target_event(TargetEvent.LINK_LOST)

    def crash_source(self) -> None:
        """kill -9 of the source's daemon: its machine and what it was about to do are gone."""
        self.trace.append("the source crashes")
        self.source, self.source_up, self.source_asks = None, False, False
        self.source_todo.clear()
        self.cut()

    def crash_target(self) -> None:
        """kill -9 of the target's daemon; the hypervisor lives on."""
        self.trace.append("the target crashes")
        self.target, self.target_up, self.target_asks = None, False, False
        self.target_todo.clear()
        self.cut()

    def restart_source(self) -> None:
        """Start again from the journal."""
        if self.source_gone or self.source_up:
            return
        self.trace.append("the source restarts")
        self.source_up = True
        if not self.source_mark.final:
            self.source = SourceHandover()
            at_home = self.source_copy == "running"
            self.source_todo.extend(self.source.recover(self.source_mark, at_home=at_home))

    def restart_target(self) -> None:
        """Start again from the journal."""
        if self.target_gone or self.target_up:
            return
        self.trace.append("the target restarts")
        self.target_up = True
        if not self.target_mark.final:
            self.may_have_run = self.target_mark is Mark.OWNED
            self.copy_lost = self.copy_lost or (self.may_have_run and self.target_copy == "none")
            self.target = TargetHandover()
            here = self.target_copy != "none"
            self.target_todo.extend(self.target.recover(self.target_mark, copy_here=here))

    def source_is_gone_for_good(self) -> None:
        """The host burns down, its copy with it; only after the decision can the other side be left alone."""
        if self.source_mark is Mark.COMMITTED and not self.target_gone:
            self.crash_source()
            self.source_gone, self.source_copy = True, "gone"

    def target_is_gone_for_good(self) -> None:
        """The same for the target."""
        if self.source_mark is Mark.COMMITTED and not self.source_gone:
            self.crash_target()
            self.target_gone, self.target_copy = True, "none"

    def operator_is_hasty(self, *, resume_here: bool) -> None:
        """resolve while the other daemon is merely down, its copy paused: it must fit in when it is back."""
        if not self.target_up and self.target_mark is Mark.BEGUN and self.target_copy == "paused":
            self._operator_at_source(resume_here)
            self.copy_given_up = True
        # Not if the source is undecided or runs the domain: he has been warned of that, and there would be two.
        source_waits = self.source_mark is Mark.COMMITTED and self.source_copy == "paused"
        if not self.source_up and source_waits and self.target_copy == "paused":
            self._operator_at_target(resume_here)

    def operator(self, *, resume_here: bool) -> None:
        """relocctl resolve, on whichever host depends on one that is gone for good."""
        if self.target_gone:
            self._operator_at_source(resume_here)
        if self.source_gone and self.target_copy == "paused":
            self._operator_at_target(resume_here)

    def _operator_at_source(self, resume_here: bool) -> None:
        if self.source is not None:
            self.operator_said = True
            self.source_event(SourceEvent.OPERATOR_RESUMES if resume_here else SourceEvent.OPERATOR_DISCARDS)

    def _operator_at_target(self, resume_here: bool) -> None:
        if self.target is not None:
            self.operator_said = True
            self.target_event(TargetEvent.OPERATOR_RESUMES if resume_here else TargetEvent.OPERATOR_DISCARDS)

    def source_inquires(self) -> None:
        """The source reaches the target and asks; both go on over the new connection."""
        if not (self.source_asks and self.target_up and self.source is not None) or self.link:
            return
        if self.source.state is not SourceState.COMMITTED:
            self.source_asks = False
            return
        answer = self._target_standing()
        self.trace.append(f"source asks, target says {answer}")
        self.source_asks = False
        self.link = self.target is not None
        meaning = {
            "owned": SourceEvent.TARGET_RESUMED,
            "prepared": SourceEvent.TARGET_PREPARED,
            "aborted": SourceEvent.TARGET_WITHOUT_COPY,
            "lost": SourceEvent.TARGET_LOST_COPY,
        }
        if answer in meaning:
            self.source_event(meaning[answer])
        if self.source is not None and self.source.state is SourceState.COMMITTED and self.target is None:
            self.source_asks = True

    def target_inquires(self) -> None:
        """The target reaches the source and asks."""
        if not (self.target_asks and self.source_up and self.target is not None) or self.link:
            return
        if self.target.state is not TargetState.PREPARED:
            self.target_asks = False
            return
        answer = self._source_standing()
        self.trace.append(f"target asks, source says {answer}")
        self.target_asks = False
        self.link = self.source is not None
        if answer == "committed":
            self.target_event(TargetEvent.SOURCE_COMMITTED)
        elif answer == "aborted":
            self.target_event(TargetEvent.SOURCE_ABORTED)
        elif self.source is None:
            self.target_asks = True

    def _target_standing(self) -> str:
        if self.target is None:
            return {
                Mark.ARRIVED: "owned",
                Mark.ABORTED: "aborted",
                Mark.UNDOING: "aborted",
                Mark.LOST: "lost",
            }.get(self.target_mark, "undecided")
        match self.target.state:
            case TargetState.DONE:
                return "owned"
            case TargetState.OWNING | TargetState.RESUMING | TargetState.GIVING_UP:
                return "committed"
            case TargetState.LOST:
                return "lost"
            case TargetState.PREPARED:
                return "prepared"
            case TargetState.DISCARDING | TargetState.DISCARDED:
                return "aborted"
        return "undecided"

    def _source_standing(self) -> str:
        if self.source is None:
            return {
                Mark.COMMITTED: "committed",
                Mark.DONE: "committed",
                Mark.ABORTED: "aborted",
                Mark.UNDOING: "aborted",
            }.get(self.source_mark, "undecided")
        if self.source.undecided:
            return "undecided"
        if self.source.state in (SourceState.UNDOING, SourceState.ABORTED):
            return "aborted"
        return "committed"

    # -- the end ---------------------------------------------------------------------------------------------------

    def heal(self) -> None:
        """Everything works again: both daemons are up, connections succeed, timers fire. Run until nothing moves."""
        if not self.source_up:
            self.restart_source()
        if not self.target_up:
            self.restart_target()
        steps: list[tuple[Callable[[], bool], Callable[[], None]]] = [
            (lambda: bool(self.source_todo), self.source_step),
            (lambda: bool(self.target_todo), self.target_step),
            (lambda: bool(self.to_source), self.source_hears),
            (lambda: bool(self.to_target), self.target_hears),
            (lambda: self.source is not None and self.source.undecided, self.source_fails),
            (lambda: self._source_can_ask and self._news_for_source, self.source_inquires),
            (lambda: self._target_can_ask, self.target_inquires),
            (self._target_hangs, self._target_gives_up),
            (lambda: self.link and self._somebody_waits, self.cut),
        ]
        for _ in range(300):
            ready = next((act for can, act in steps if can()), None)
            if ready is None:
                return
            ready()
            self.check()
        raise AssertionError(f"the hosts never come to rest: {self.trace}")

    @property
    def _source_can_ask(self) -> bool:
        return self.source_asks and self.source is not None and self.target_up and not self.link

    @property
    def _target_can_ask(self) -> bool:
        return self.target_asks and self.target is not None and self.source_up and not self.link

    @property
    def _news_for_source(self) -> bool:
        """A target that has lost its copy says the same each time."""
        return not (self.target is None and self.target_mark is Mark.LOST)

    @property
    def _somebody_waits(self) -> bool:
        """For a message that was lost: the other's silence, or its wrong answers, end the connection in time."""
        source_waits = self.source is not None and self.source.state is SourceState.COMMITTED
        target_waits = self.target is not None and self.target.state is TargetState.PREPARED
        return (source_waits and self._news_for_source) or target_waits

    def _target_hangs(self) -> bool:
        return self.target is not None and self.target.state in (
            TargetState.RESERVED,
            TargetState.RECEIVING,
            TargetState.CHECKING,
        )

    def _target_gives_up(self) -> None:
        """No lanes, no stream, no word: its timers end it."""
        assert self.target is not None
        self.target_todo.extend(self.target.fail(WHY) or ())

    def check_decided(self) -> None:
        """At rest: one running copy, none elsewhere, and both journals know; or the loss is known and kept."""
        copies = (self.source_copy, self.target_copy)
        if self.source_gone or self.target_gone:
            return
        if self.target_mark is Mark.LOST:
            assert copies == ("paused", "none"), f"{copies}: {self.trace}"
            assert self.source_mark is Mark.COMMITTED, self.trace
            return
        assert copies in (("running", "none"), ("gone", "running")), f"{copies}: {self.trace}"
        if copies[0] == "running":
            assert self.source_mark is Mark.ABORTED, self.trace
            assert self.target_mark is Mark.ABORTED, self.trace
        else:
            assert self.source_mark is Mark.DONE, self.trace
            assert self.target_mark is Mark.ARRIVED, self.trace

    def check_survivor(self) -> None:
        """After an operator's decision on the host that is left: decided there, as it was told."""
        copy = self.source_copy if self.target_gone else self.target_copy
        mark = self.source_mark if self.target_gone else self.target_mark
        assert mark.final, f"{mark}: {self.trace}"
        if mark in (Mark.DONE, Mark.LOST) or (mark is Mark.ABORTED and self.source_gone):
            assert copy in ("gone", "none"), f"{copy}: {self.trace}"
        else:
            assert copy == "running", f"{copy}: {self.trace}"
