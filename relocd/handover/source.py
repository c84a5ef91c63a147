"""The source's side of the hand-over.

The one decision is the effect WRITE_COMMITTED. Before it is on disk, everything that goes wrong leads to UNDOING and
the domain is at home here again. After it, two things lead back: the target's own word that its copy never ran and is
gone, and an operator who takes it upon himself because the target is gone for good. Until one of them is heard the
source waits, keeps its paused copy and asks.
"""

from __future__ import annotations

import enum

from relocd.handover.machine import Failure, Machine, Totals, Transition
from relocd.handover.record import Mark


class SourceState(enum.StrEnum):
    """Where the source stands. The domain runs (or is paused as it was) up to MOVING."""

    OPENING = "opening"  # proposed; lanes and boot files on their way; the hypervisor does not know yet
    MOVING = "moving"  # the hypervisor streams
    SWITCHING = "switching"  # the domain is paused; last pages and device state are on their way
    DECIDING = "deciding"  # the decision is being written
    COMMITTED = "committed"  # the target owns the domain
    RELEASING = "releasing"  # the target runs it; the paused copy here is being destroyed
    UNDOING = "undoing"  # the domain is being brought back here
    DONE = "done"
    ABORTED = "aborted"


class SourceEvent(enum.StrEnum):
    """What the source can hear of."""

    TARGET_RECEIVING = "target-receiving"
    DOMAIN_PAUSED = "domain-paused"
    AGREED = "agreed"  # hypervisor done, both digests known and equal (see SourceHandover)
    FAILURE = "failure"  # carrier, hypervisor, digest, timeout, operator, the peer's abort
    LINK_LOST = "link-lost"
    COMMIT_WRITTEN = "commit-written"
    COMMIT_NOT_WRITTEN = "commit-not-written"
    TARGET_RESUMED = "target-resumed"
    TARGET_PREPARED = "target-prepared"  # its answer when asked: holds a paused copy, waits for the decision
    TARGET_WITHOUT_COPY = "target-without-copy"  # its answer when asked: its copy is gone and never ran
    TARGET_LOST_COPY = "target-lost-copy"  # its answer when asked: its copy has ended and may have run
    OPERATOR_RESUMES = "operator-resumes"  # the target is gone for good: the copy here is the domain
    OPERATOR_DISCARDS = "operator-discards"  # the target has it or nobody shall: the copy here goes
    COPY_RELEASED = "copy-released"
    DOMAIN_BACK = "domain-back"


class SourceEffect(enum.StrEnum):
    """What the source is to do."""

    START_STREAM = "start-stream"
    SWITCH_OVER = "switch-over"
    TELL_SWITCHOVER = "tell-switchover"
    START_TIMER = "start-timer"
    STOP_TIMER = "stop-timer"
    WRITE_COMMITTED = "write-committed"
    TELL_COMMIT = "tell-commit"
    ASK_TARGET = "ask-target"
    RELEASE_COPY = "release-copy"
    WRITE_DONE = "write-done"
    TELL_ABORT = "tell-abort"
    WRITE_UNDOING = "write-undoing"
    BRING_BACK = "bring-back"
    WRITE_ABORTED = "write-aborted"
    FINISH = "finish"


_S, _V, _F = SourceState, SourceEvent, SourceEffect


def _to(state: SourceState, *effects: SourceEffect) -> Transition[SourceState, SourceEffect]:
    return Transition(state, effects)


_UNDO = _to(_S.UNDOING, _F.STOP_TIMER, _F.TELL_ABORT, _F.BRING_BACK)

SOURCE_TABLE: dict[tuple[SourceState, SourceEvent], Transition[SourceState, SourceEffect]] = {
    (_S.OPENING, _V.TARGET_RECEIVING): _to(_S.MOVING, _F.START_STREAM),
    (_S.OPENING, _V.FAILURE): _UNDO,
    (_S.OPENING, _V.LINK_LOST): _UNDO,
    (_S.MOVING, _V.DOMAIN_PAUSED): _to(_S.SWITCHING, _F.START_TIMER, _F.SWITCH_OVER, _F.TELL_SWITCHOVER),
    (_S.MOVING, _V.FAILURE): _UNDO,
    (_S.MOVING, _V.LINK_LOST): _UNDO,
    (_S.SWITCHING, _V.AGREED): _to(_S.DECIDING, _F.STOP_TIMER, _F.WRITE_COMMITTED),
    (_S.SWITCHING, _V.FAILURE): _UNDO,
    (_S.SWITCHING, _V.LINK_LOST): _UNDO,
    (_S.DECIDING, _V.COMMIT_WRITTEN): _to(_S.COMMITTED, _F.TELL_COMMIT),
    (_S.DECIDING, _V.COMMIT_NOT_WRITTEN): _UNDO,
    (_S.COMMITTED, _V.TARGET_RESUMED): _to(_S.RELEASING, _F.RELEASE_COPY),
    (_S.COMMITTED, _V.LINK_LOST): _to(_S.COMMITTED, _F.ASK_TARGET),
    (_S.COMMITTED, _V.TARGET_PREPARED): _to(_S.COMMITTED, _F.TELL_COMMIT),
    (_S.COMMITTED, _V.TARGET_WITHOUT_COPY): _to(_S.UNDOING, _F.BRING_BACK),
    # The copy here is stale by then, and may be the last one: only an operator can weigh that.
    (_S.COMMITTED, _V.TARGET_LOST_COPY): _to(_S.COMMITTED),
    # On disk first: a target that comes back after all must not be told to run its copy, whatever happens here.
    (_S.COMMITTED, _V.OPERATOR_RESUMES): _to(_S.UNDOING, _F.WRITE_UNDOING, _F.BRING_BACK),
    (_S.COMMITTED, _V.OPERATOR_DISCARDS): _to(_S.RELEASING, _F.RELEASE_COPY),
    (_S.RELEASING, _V.COPY_RELEASED): _to(_S.DONE, _F.WRITE_DONE, _F.FINISH),
    (_S.UNDOING, _V.DOMAIN_BACK): _to(_S.ABORTED, _F.WRITE_ABORTED, _F.FINISH),
}


#: Where a daemon that is started again goes on, by the mark on its disk.
SOURCE_RECOVERY: dict[Mark, Transition[SourceState, SourceEffect]] = {
    Mark.BEGUN: _to(_S.UNDOING, _F.BRING_BACK),
    Mark.COMMITTED: _to(_S.COMMITTED, _F.ASK_TARGET),
    Mark.UNDOING: _to(_S.UNDOING, _F.BRING_BACK),
}


class SourceHandover:
    """The machine, and the three facts that together are AGREED.

    The source commits only when its own stream has ended, the hypervisor counts it as complete, and the target's
    digest equals its own.
    """

    def __init__(self, state: SourceState = SourceState.OPENING) -> None:
        self._machine: Machine[SourceState, SourceEvent, SourceEffect] = Machine(SOURCE_TABLE, state)
        self.failure: Failure | None = None
        self._own: Totals | None = None
        self._target: Totals | None = None
        self._hypervisor_done = False

    @property
    def state(self) -> SourceState:
        return self._machine.state

    @property
    def undecided(self) -> bool:
        """May the decision still fall either way?"""
        return self.state in (_S.OPENING, _S.MOVING, _S.SWITCHING, _S.DECIDING)

    def handle(self, event: SourceEvent) -> tuple[SourceEffect, ...] | None:
        """Take an event; see Machine.handle."""
        return self._machine.handle(event)

    def recover(self, mark: Mark, *, at_home: bool) -> tuple[SourceEffect, ...]:
        """Go on from what a former daemon left on disk; ``mark`` is not final.

        ``at_home``: the domain is here and not on its way out. Then it was not committed, even if the disk says so: a
        write that was reported as failed can be there all the same.
        """
        begin = SOURCE_RECOVERY[Mark.UNDOING if at_home else mark]
        self._machine.state = begin.state
        return begin.effects

    def fail(self, failure: Failure) -> tuple[SourceEffect, ...] | None:
        """A failure with its reason; the first reason that has an effect is kept."""
        effects = self._machine.handle(_V.FAILURE)
        if effects is not None:
            self.failure = failure
        return effects

    def stream_ended(self, totals: Totals) -> tuple[SourceEffect, ...] | None:
        """The source's carrier has sent all and knows its digest."""
        self._own = totals
        return self._agree()

    def target_prepared(self, totals: Totals) -> tuple[SourceEffect, ...] | None:
        """The target has loaded all and says what it loaded. None if it says so at a wrong time."""
        if self.state is not _S.SWITCHING or self._target is not None:
            return None
        self._target = totals
        return self._agree()

    def hypervisor_finished(self) -> tuple[SourceEffect, ...] | None:
        """The source's hypervisor counts its stream as complete and acknowledged."""
        self._hypervisor_done = True
        return self._agree()

    def _agree(self) -> tuple[SourceEffect, ...] | None:
        if self._own is None or self._target is None or not self._hypervisor_done:
            return ()
        if self._own == self._target:
            return self._machine.handle(_V.AGREED)
        return self.fail(_mismatch(self._own, self._target))


def _mismatch(own: Totals, target: Totals) -> Failure:
    return Failure(
        "stream",
        f"the target loaded something else than was sent ({own.stream_bytes} bytes, digest {own.digest} here; "
        f"{target.stream_bytes} bytes, digest {target.digest} there)",
        "The domain runs on here. Memory or network hardware of one of the hosts may be failing.",
    )
