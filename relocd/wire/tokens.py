"""What a lane shows instead of the relocation's token where lanes are encrypted."""

from __future__ import annotations

from hashlib import sha256


def lane_token(token: str, number: int) -> str:
    """The token of one lane, 32 hex digits.

    A lane names its relocation before its encryption begins. Who reads that on the way must not learn the token
    itself, with which a host can ask about the relocation.
    """
    return sha256(f"lane {number} {token}".encode()).hexdigest()[:32]
