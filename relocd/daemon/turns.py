"""Whose turn it is: the domains that leave this host move a few at a time, in the order in which they were sent off.

Several that share too few processors are slower together than one after another: each takes longer, so its guest
changes more meanwhile, which has to be sent again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final
from uuid import UUID

from attrs import define, field
from twisted.internet.defer import Deferred, succeed

CORES_A_TURN: Final = 2
"""A relocation keeps two processors busy: the hypervisor that reads memory, and the carrier that packs it."""


def turns(cores: int) -> int:
    """How many domains a host with so many processors sends off at the same time, unless somebody has said it."""
    return max(1, cores // CORES_A_TURN)


@define
class Turns:
    """The queue of one host. ``limit`` gives how many may move at the moment."""

    limit: Callable[[], int]
    _moving: set[UUID] = field(factory=set, init=False)
    _waiting: dict[UUID, Deferred[None]] = field(factory=dict, init=False)

    def has_to_wait(self) -> bool:
        """Whether one that came now would not move at once."""
        return bool(self._waiting) or len(self._moving) >= self.limit()

    def come(self, relocation: UUID) -> Deferred[None]:
        """Get in line. Fires when its turn has come, and when it has left."""
        if not self.has_to_wait():
            self._moving.add(relocation)
            return succeed(None)
        self._waiting[relocation] = Deferred()
        return self._waiting[relocation]

    def leave(self, relocation: UUID) -> None:
        """It needs its turn no more, or never will. Idempotent."""
        self._moving.discard(relocation)
        waiter = self._waiting.pop(relocation, None)
        if waiter is not None:
            waiter.callback(None)
        self.look()

    def look(self) -> None:
        """Somebody left, or the limit is another one: let those move who can."""
        while self._waiting and len(self._moving) < self.limit():
            relocation = next(iter(self._waiting))
            waiter = self._waiting.pop(relocation)
            self._moving.add(relocation)
            waiter.callback(None)
