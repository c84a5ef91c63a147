"""What a proposal is for, and what one side can say about a relocation: words that travel in messages."""

from __future__ import annotations

import enum


class Intent(enum.StrEnum):
    """What a proposal is for."""

    MOVE = "move"
    CHECK = "check"  # preflight only: nothing is reserved, nothing will move


class Decision(enum.StrEnum):
    """What one side knows about a relocation when the other asks (see relocd.handover)."""

    UNDECIDED = "undecided"
    COMMITTED = "committed"
    ABORTED = "aborted"
    PREPARED = "prepared"
    OWNED = "owned"
    LOST = "lost"  # owned, and its copy has ended; it may have run
    UNHEARD = "unheard"  # no record of such a relocation
