"""Which messages have a meaning at which point of a relocation; docs/protocol.md has the same in words.

What is not listed is a breach. Before the target has promised to be prepared it ends the relocation, and the domain
stays where it is. Afterwards a breach cannot be allowed to decide anything: it ends the connection, and both sides
find each other again over a new one and ask.

Listed are also messages that an honest peer has sent before it could know better: they cross with ours on the way.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from attrs import frozen

from relocd.handover.source import SourceState
from relocd.handover.target import TargetState
from relocd.wire.messages import (
    Abort,
    Commit,
    Decision,
    Inquire,
    Message,
    Prepared,
    Problem,
    ProgressNote,
    Receiving,
    Resumed,
    Standing,
    Switchover,
    encode,
)

Kinds = frozenset[type[Message]]

_ALWAYS: Final[Kinds] = frozenset({Abort, Inquire, Problem, ProgressNote})


def _with(*kinds: type[Message]) -> Kinds:
    return _ALWAYS | frozenset(kinds)


@frozen
class Rule:
    """At one state: what may be heard, and whether anything else ends the relocation or the connection only."""

    kinds: Kinds
    breach_ends_relocation: bool = False


#: What a source hears of its target. From UNDOING on all that a target says may be on its way still.
SOURCE: Final[Mapping[SourceState, Rule]] = {
    SourceState.OPENING: Rule(_with(Receiving), breach_ends_relocation=True),
    SourceState.MOVING: Rule(_with(), breach_ends_relocation=True),
    SourceState.SWITCHING: Rule(_with(Prepared), breach_ends_relocation=True),
    SourceState.DECIDING: Rule(_with()),
    SourceState.COMMITTED: Rule(_with(Resumed, Standing)),
    SourceState.RELEASING: Rule(_with(Resumed, Standing)),
    SourceState.UNDOING: Rule(_with(Receiving, Prepared, Standing, Resumed)),
    SourceState.DONE: Rule(_with(Resumed, Standing)),
    SourceState.ABORTED: Rule(_with(Receiving, Prepared, Standing, Resumed)),
}

#: What a target hears of its source. The last bytes of a stream may overtake ``switchover``; a commit comes again
#: when the source was told ``prepared`` over a new connection.
TARGET: Final[Mapping[TargetState, Rule]] = {
    TargetState.RESERVED: Rule(_with(), breach_ends_relocation=True),
    TargetState.RECEIVING: Rule(_with(Switchover), breach_ends_relocation=True),
    TargetState.CHECKING: Rule(_with(Switchover), breach_ends_relocation=True),
    TargetState.PREPARED: Rule(_with(Switchover, Commit, Standing)),
    TargetState.OWNING: Rule(_with(Commit, Standing)),
    TargetState.RESUMING: Rule(_with(Commit, Standing)),
    TargetState.DONE: Rule(_with(Commit, Standing)),
    TargetState.DISCARDING: Rule(_with(Switchover, Commit, Standing)),
    TargetState.DISCARDED: Rule(_with(Switchover, Commit, Standing)),
    TargetState.GIVING_UP: Rule(_with(Commit, Standing)),
    TargetState.LOST: Rule(_with(Commit, Standing)),
}

#: What a target answers when it is asked.
TARGET_STANDING: Final[Mapping[TargetState, Decision]] = {
    TargetState.RESERVED: Decision.UNDECIDED,
    TargetState.RECEIVING: Decision.UNDECIDED,
    TargetState.CHECKING: Decision.UNDECIDED,
    TargetState.PREPARED: Decision.PREPARED,
    TargetState.OWNING: Decision.COMMITTED,
    TargetState.RESUMING: Decision.COMMITTED,
    TargetState.GIVING_UP: Decision.COMMITTED,
    TargetState.DONE: Decision.OWNED,
    TargetState.DISCARDING: Decision.ABORTED,
    TargetState.DISCARDED: Decision.ABORTED,
    TargetState.LOST: Decision.LOST,
}


def name_of(message: Message) -> str:
    """What a message is called on the wire."""
    return encode(message).decode().strip("()\n").split(" ")[0]
