"""Page numbers as ascending stretches: what is next to each other can be told, copied or skipped at once."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from relocd.pages.items import Numbers


def stretches(numbers: Numbers) -> tuple[Numbers, npt.NDArray[np.intp]]:
    """Where each ascending stretch begins and how many pages it has, in the order given. ``numbers`` is not empty."""
    breaks = np.flatnonzero(np.diff(numbers) != 1)
    if not len(breaks):
        return numbers[:1], np.array([len(numbers)], np.intp)
    first = np.concatenate(([0], breaks + 1))
    return numbers[first], np.diff(first, append=len(numbers))
