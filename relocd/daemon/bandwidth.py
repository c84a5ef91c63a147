"""What all outgoing relocations of this host may send together, shared anew whenever one comes or goes."""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID

from attrs import define, field, frozen

from relocd.convergence.shares import fair_shares

Apply = Callable[[int], None]


@frozen
class _Sender:
    cap_bytes_s: int
    apply: Apply


@define
class Bandwidth:
    """The relocations that send at the moment. ``total`` gives the host's cap in bytes per second, 0 for none."""

    total: Callable[[], int]
    _senders: dict[UUID, _Sender] = field(factory=dict, init=False)

    def join(self, relocation: UUID, cap_bytes_s: int, apply: Apply) -> None:
        """One begins to send. ``apply`` is called with its share, now and whenever that changes; 0 is no limit."""
        self._senders[relocation] = _Sender(cap_bytes_s, apply)
        self.share()

    def leave(self, relocation: UUID) -> None:
        """One sends no more. Idempotent."""
        if self._senders.pop(relocation, None) is not None:
            self.share()

    def share(self) -> None:
        """Share anew: somebody came or went, or the cap was changed."""
        caps = {relocation: sender.cap_bytes_s for relocation, sender in self._senders.items()}
        for relocation, share in fair_shares(self.total(), caps).items():
            self._senders[relocation].apply(share)
