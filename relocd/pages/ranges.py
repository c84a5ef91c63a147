"""Page numbers as ascending stretches: what is next to each other can be told, copied or skipped at once."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from relocd.pages.items import Numbers

RANGE_BYTES: Final = 12
"""A stretch as a batch writes it down: its first number, its length."""

_ONE = np.uint64(1)
_START = np.zeros(1, np.intp)


def stretches(numbers: Numbers) -> tuple[Numbers, npt.NDArray[np.intp]]:
    """Where each ascending stretch begins and how many pages it has, in the order given. ``numbers`` is not empty."""
    breaks = np.flatnonzero(numbers[1:] != numbers[:-1] + _ONE)
    if not len(breaks):
        return numbers[:1], np.array([len(numbers)], np.intp)
    first = np.concatenate((_START, breaks + 1))
    counts = np.empty_like(first)
    counts[:-1] = first[1:] - first[:-1]
    counts[-1] = len(numbers) - first[-1]
    return numbers[first], counts
