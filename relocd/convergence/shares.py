"""Equal shares of what all relocations of a host may take together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

KeyT = TypeVar("KeyT")

NO_LIMIT = 0


def fair_shares(total: int, caps: Mapping[KeyT, int]) -> dict[KeyT, int]:
    """Max-min fair shares of ``total``, each at most its own cap; all are rates, and 0 is no limit.

    Nobody gets less than an equal share unless that is its cap, and what some may not use goes to the others. The
    shares add up to ``total`` at most; only where that is less than 1 for each they get 1, since 0 would be no limit.
    """
    if total == NO_LIMIT:
        return dict(caps)
    shares: dict[KeyT, int] = {}
    left = total
    for key, cap in sorted(caps.items(), key=lambda item: item[1] or total + 1):
        equal = left // (len(caps) - len(shares))
        share = min(cap, equal) if cap else equal
        shares[key] = max(1, share)
        left = max(0, left - share)
    return shares
