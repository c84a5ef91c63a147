"""The target's side of the hand-over.

Until it has said PREPARED the target may discard at will. From then on it holds a paused copy and neither resumes nor
discards it on a guess: only the source's word (commit or abort) decides, heard on the dialogue or asked for later.
"""

from __future__ import annotations

import enum

from relocd.handover.machine import Failure, Machine, Transition


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
    COPY_LOST = "copy-lost"  # owned, but its hypervisor had died before it was ever told to run
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
    TELL_ABORT = "tell-abort"
    DISCARD = "discard"
    WRITE_ABORTED = "write-aborted"
    FINISH = "finish"


_S, _V, _F = TargetState, TargetEvent, TargetEffect


def _to(state: TargetState, *effects: TargetEffect) -> Transition[TargetState, TargetEffect]:
    return Transition(state, effects)


_GIVE_UP = _to(_S.DISCARDING, _F.TELL_ABORT, _F.DISCARD)
_DISCARD = _to(_S.DISCARDING, _F.DISCARD)
_OWN = _to(_S.OWNING, _F.WRITE_OWNED)

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
    (_S.OWNING, _V.OWNED_WRITTEN): _to(_S.RESUMING, _F.RESUME),
    (_S.OWNING, _V.OWNED_NOT_WRITTEN): _to(_S.OWNING, _F.WRITE_OWNED_LATER),
    (_S.RESUMING, _V.DOMAIN_RUNS): _to(_S.DONE, _F.TELL_RESUMED, _F.FINISH),
    (_S.RESUMING, _V.DOMAIN_DOES_NOT_RUN): _to(_S.RESUMING, _F.RESUME_LATER),
    # The source still has its paused copy, and this one certainly never ran: on disk first, then the source is told.
    (_S.RESUMING, _V.COPY_LOST): _to(_S.DISCARDING, _F.WRITE_ABORTED, _F.TELL_ABORT, _F.DISCARD),
    (_S.DISCARDING, _V.DISCARDED): _to(_S.DISCARDED, _F.WRITE_ABORTED, _F.FINISH),
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

    def fail(self, failure: Failure) -> tuple[TargetEffect, ...] | None:
        """A failure with its reason; the first reason that has an effect is kept."""
        effects = self._machine.handle(_V.FAILURE)
        if effects is not None:
            self.failure = failure
        return effects
