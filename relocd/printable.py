"""Texts of strangers, made fit for logs and terminals."""

from __future__ import annotations

from typing import Final

MAX_TEXT: Final = 1000
"""They are cut to this many characters."""


def printable(text: str) -> str:
    """Cut a peer's text to size and blank what could play tricks on a terminal or log.

    Those are control characters and invisible ones, such as those that turn the direction of writing.
    """
    cut = text[:MAX_TEXT]
    return cut if cut.isprintable() else "".join(c if c.isprintable() else " " for c in cut)
