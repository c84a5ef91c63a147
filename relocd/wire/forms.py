"""What the table of messages is made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from relocd.sxp import Value
from relocd.wire.fields import Fields

#: The fields of a message as they are written.
Rows = tuple[tuple[Value, ...], ...]

#: How one kind of message is written and read: its head, its fields for the wire, its reader.
Form = tuple[str, Callable[..., Rows], Callable[[Fields], Any]]


def flag(value: bool) -> str:
    """Truth, as it is written."""
    return "yes" if value else "no"
