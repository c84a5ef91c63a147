"""The target's side of the hand-over.

Until it has said PREPARED the target may discard at will. From then on it holds a paused copy and neither resumes nor
discards it on a guess: only the source's word (commit or abort) decides, heard on the dialogue or asked for later,
or an operator's when the source is gone for good.
"""

from __future__ import annotations

import enum

from relocd.handover.machine import Failure, Machine, Transition
from relocd.handover.record import Mark


class TargetState(enum.StrEnum):
    """Where the target stands. The domain does not run here before RESUMING."""

    RESERVED = "reserved"  # accepted; lanes and boot files are coming
    RECEIVING = "receiving"  # the hypervisor loads the stream, the domain is paused
    CHECKING = "checking"  # all is loaded; the digest is being asked from the carrier
    PREPARED = "prepared"  # the source has been told; the decision is the source's
    OWNING = "owning"  # the source has committed; that is being written down here
    RESUMING = "resuming"
    DONE = "done"
    DISCARDING = "discarding"
    DISCARDED = "discarded"
    GIVING_UP = "giving-up"  # owned, does not resume, and an operator wants it gone
    LOST = "lost"  # owned and ended here; whether it ever ran is not known


class TargetEvent(enum.StrEnum):
    """What the target can hear of."""

    LISTENING = "listening"  # boot files are here, the hypervisor is built and waits for its stream
    LOADED = "loaded"
    DIGEST_KNOWN = "digest-known"
    FAILURE = "failure"  # carrier, hypervisor, limits
    SOURCE_ABORTED = "source-aborted"
    LINK_LOST = "link-lost"
    SOURCE_COMMITTED = "source-committed"
    SOURCE_UNDECIDED = "source-undecided"
    OWNED_WRITTEN = "owned-written"
    OWNED_NOT_WRITTEN = "owned-not-written"
    DOMAIN_RUNS = "domain-runs"
    DOMAIN_DOES_NOT_RUN = "domain-does-not-run"
    COPY_NEVER_RAN = "copy-never-ran"  # owned, but its hypervisor ended before it was ever told to run
    COPY_LOST = "copy-lost"  # owned, and its hypervisor ended after it may have been told to run
    OPERATOR_RESUMES = "operator-resumes"
    OPERATOR_DISCARDS = "operator-discards"
    DISCARDED = "discarded"


class TargetEffect(enum.StrEnum):
    """What the target is to do."""

    TELL_RECEIVING = "tell-receiving"
    ASK_DIGEST = "ask-digest"
    TELL_PREPARED = "tell-prepared"
    ASK_SOURCE = "ask-source"
    WRITE_OWNED = "write-owned"
    WRITE_OWNED_LATER = "write-owned-later"
    RESUME = "resume"
    RESUME_LATER = "resume-later"
    TELL_RESUMED = "tell-resumed"
    WRITE_ARRIVED = "write-arrived"
    TELL_ABORT = "tell-abort"
    WRITE_UNDOING = "write-undoing"
    DISCARD = "discard"
    WRITE_ABORTED = "write-aborted"
    WRITE_LOST = "write-lost"
    TELL_LOST = "tell-lost"
    FINISH = "finish"


_S, _V, _F = TargetState, TargetEvent, TargetEffect


def _to(state: TargetState, *effects: TargetEffect) -> Transition[TargetState, TargetEffect]:
    return Transition(state, effects)


_GIVE_UP = _to(_S.DISCARDING, _F.TELL_ABORT, _F.DISCARD)
_DISCARD = _to(_S.DISCARDING, _F.DISCARD)
_OWN = _to(_S.OWNING, _F.WRITE_OWNED)
# On disk first: who says that a copy never ran must not find it again after a crash.
_UNDO = _to(_S.DISCARDING, _F.WRITE_UNDOING, _F.TELL_ABORT, _F.DISCARD)
_LOSE = _to(_S.LOST, _F.WRITE_LOST, _F.TELL_LOST, _F.FINISH)
_ARRIVE = _to(_S.DONE, _F.TELL_RESUMED, _F.WRITE_ARRIVED, _F.FINISH)

TARGET_TABLE: dict[tuple[TargetState, TargetEvent], Transition[TargetState, TargetEffect]] = {
    (_S.RESERVED, _V.LISTENING): _to(_S.RECEIVING, _F.TELL_RECEIVING),
    (_S.RESERVED, _V.FAILURE): _GIVE_UP,
    (_S.RESERVED, _V.SOURCE_ABORTED): _DISCARD,
    (_S.RESERVED, _V.LINK_LOST): _DISCARD,
    (_S.RECEIVING, _V.LOADED): _to(_S.CHECKING, _F.ASK_DIGEST),
    (_S.RECEIVING, _V.FAILURE): _GIVE_UP,
    (_S.RECEIVING, _V.SOURCE_ABORTED): _DISCARD,
    (_S.RECEIVING, _V.LINK_LOST): _DISCARD,
    (_S.CHECKING, _V.DIGEST_KNOWN): _to(_S.PREPARED, _F.TELL_PREPARED),
    (_S.CHECKING, _V.FAILURE): _GIVE_UP,
    (_S.CHECKING, _V.SOURCE_ABORTED): _DISCARD,
    (_S.CHECKING, _V.LINK_LOST): _DISCARD,
    (_S.PREPARED, _V.SOURCE_COMMITTED): _OWN,
    (_S.PREPARED, _V.SOURCE_ABORTED): _DISCARD,
    (_S.PREPARED, _V.SOURCE_UNDECIDED): _to(_S.PREPARED, _F.ASK_SOURCE),
    (_S.PREPARED, _V.LINK_LOST): _to(_S.PREPARED, _F.ASK_SOURCE),
    # The paused copy died. It never ran, so saying so is safe, whatever the source has decided meanwhile.
    (_S.PREPARED, _V.FAILURE): _GIVE_UP,
    (_S.PREPARED, _V.OPERATOR_RESUMES): _OWN,
    (_S.PREPARED, _V.OPERATOR_DISCARDS): _UNDO,
    (_S.OWNING, _V.OWNED_WRITTEN): _to(_S.RESUMING, _F.RESUME),
    (_S.OWNING, _V.OWNED_NOT_WRITTEN): _to(_S.OWNING, _F.WRITE_OWNED_LATER),
    (_S.RESUMING, _V.DOMAIN_RUNS): _ARRIVE,
    (_S.RESUMING, _V.DOMAIN_DOES_NOT_RUN): _to(_S.RESUMING, _F.RESUME_LATER),
    (_S.RESUMING, _V.COPY_NEVER_RAN): _UNDO,
    (_S.RESUMING, _V.COPY_LOST): _LOSE,
    (_S.RESUMING, _V.OPERATOR_DISCARDS): _to(_S.GIVING_UP, _F.DISCARD),
    (_S.GIVING_UP, _V.DOMAIN_RUNS): _ARRIVE,
    (_S.GIVING_UP, _V.COPY_LOST): _LOSE,
    (_S.GIVING_UP, _V.DISCARDED): _LOSE,
    (_S.DISCARDING, _V.DISCARDED): _to(_S.DISCARDED, _F.WRITE_ABORTED, _F.FINISH),
}


#: Where a daemon that is started again goes on, by the mark on its disk.
TARGET_RECOVERY: dict[Mark, Transition[TargetState, TargetEffect]] = {
    Mark.BEGUN: _to(_S.PREPARED, _F.ASK_SOURCE),
    Mark.OWNED: _to(_S.RESUMING, _F.RESUME),
    Mark.UNDOING: _to(_S.DISCARDING, _F.DISCARD),
}


class TargetHandover:
    """The machine and the reason of its failure."""

    def __init__(self, state: TargetState = TargetState.RESERVED) -> None:
        self._machine: Machine[TargetState, TargetEvent, TargetEffect] = Machine(TARGET_TABLE, state)
        self.failure: Failure | None = None

    @property
    def state(self) -> TargetState:
        return self._machine.state

    def handle(self, event: TargetEvent) -> tuple[TargetEffect, ...] | None:
        """Take an event; see Machine.handle."""
        return self._machine.handle(event)

    def recover(self, mark: Mark, *, copy_here: bool) -> tuple[TargetEffect, ...]:
        """Go on from what a former daemon left on disk; ``mark`` is not final.

        An undecided copy that is here may have been told to be prepared, and committed since: only the source knows.
        """
        begin = TARGET_RECOVERY[mark] if mark is not Mark.BEGUN or copy_here else _DISCARD
        self._machine.state = begin.state
        return begin.effects

    def fail(self, failure: Failure) -> tuple[TargetEffect, ...] | None:
        """A failure with its reason; the first reason that has an effect is kept."""
        effects = self._machine.handle(_V.FAILURE)
        if effects is not None:
            self.failure = failure
        return effects
