"""What one side remembers of a relocation, on disk: the decision, and what acting on it after a crash needs."""

from __future__ import annotations

import enum
from uuid import UUID

from attrs import field, frozen

from relocd.model import DomainConfig


class Role(enum.StrEnum):
    """Which side this host was."""

    SOURCE = "source"
    TARGET = "target"


class Mark(enum.StrEnum):
    """How far a relocation is decided on this side. Each mark is on disk before anything is done because of it."""

    BEGUN = "begun"  # undecided: the source owns the domain
    COMMITTED = "committed"  # source only: the target owns it, not yet confirmed
    OWNED = "owned"  # target only: ours, on its way to run
    UNDOING = (
        "undoing"  # decided against the target's copy; the source brings its own back, the target discards
    )
    DONE = "done"  # source only: the target has it, own copy destroyed
    ARRIVED = "arrived"  # target only: it runs here
    ABORTED = "aborted"  # undone on this side
    LOST = "lost"  # target only: owned, and its hypervisor ended before it was seen to run; it may have run

    @property
    def final(self) -> bool:
        """Is there nothing left to do or to ask?"""
        return self in (Mark.DONE, Mark.ARRIVED, Mark.ABORTED, Mark.LOST)


@frozen
class Record:
    """One relocation as one side's journal holds it.

    ``peer_host`` and ``peer_port`` are where the other side answers questions; ``began_s`` is Unix time; ``outcome``
    holds the closing facts (the object that ``migrate --json`` prints last), empty until then. ``secure``: it began
    over TLS, and is not continued without.
    """

    relocation: UUID
    role: Role
    domain: DomainConfig
    live: bool
    peer_host: str
    peer_port: int
    token: str
    was_paused: bool
    mark: Mark
    began_s: float
    outcome: dict[str, object] = field(factory=dict)
    secure: bool = False
