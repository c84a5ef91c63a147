"""What the machines of both sides share: a transition table and the loop that reads it."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Generic, TypeVar

from attrs import frozen

StateT = TypeVar("StateT", bound=enum.StrEnum)
EventT = TypeVar("EventT", bound=enum.StrEnum)
EffectT = TypeVar("EffectT", bound=enum.StrEnum)


@frozen
class Totals:
    """What one end counted of the stream: digest over all content in order, and its length before compression."""

    digest: str
    stream_bytes: int


@frozen
class Failure:
    """Why a relocation ends: a stable code (see relocd.errors) and a sentence for an administrator."""

    code: str
    text: str
    hint: str = ""


@frozen
class Transition(Generic[StateT, EffectT]):
    """Where an event leads, and what is to be done on the way, in this order."""

    state: StateT
    effects: tuple[EffectT, ...] = ()


class Machine(Generic[StateT, EventT, EffectT]):
    """Walks a table. An event that the table does not list for the present state changes nothing.

    ``handle`` returns None for such an event: what comes from a peer is then a breach of the protocol, what comes
    from this host is merely late.
    """

    def __init__(
        self, table: Mapping[tuple[StateT, EventT], Transition[StateT, EffectT]], state: StateT
    ) -> None:
        self._table = table
        self.state = state

    def handle(self, event: EventT) -> tuple[EffectT, ...] | None:
        """Take one event; return the effects to carry out, or None if the event has no meaning now."""
        transition = self._table.get((self.state, event))
        if transition is None:
            return None
        self.state = transition.state
        return transition.effects
