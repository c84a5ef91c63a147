"""What somebody may have meant by a name that is not known."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

MAX_CHARACTERS = 64
"""No name of relocd is longer; comparing costs time that grows with the square of the length."""


def suggestion(name: str, known: Iterable[str]) -> str:
    """A sentence that offers the most similar name, or nothing if none comes near."""
    found = get_close_matches(name[:MAX_CHARACTERS], known, n=1, cutoff=0.7)
    return f"Did you mean '{found[0]}'?" if found else ""
