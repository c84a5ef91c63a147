"""How many lanes a relocation gets where nobody has said it: by a host's processors and by its link.

Each host decides for itself what it is good for, and the smaller number counts. It is decided before anything moves,
and cannot be changed by what is measured later.
"""

from __future__ import annotations

from typing import Final

from relocd.pages.limits import LANES_MAX

LANE_MBIT_S: Final = 2500
"""What one lane is sure to carry [Mbit/s]: its buffers are so small (128 KiB, so that little is under way when the
domain is paused) that it fills no more than this at a round trip of 0.4 ms. Up to here a second lane only costs."""
LANES_UNKNOWN_LINK: Final = 2
"""For a link whose speed nobody tells (virtio, loopback): with processors to spare, one too many costs a thread."""
CORES_A_LANE: Final = 2
"""A lane keeps a thread busy that hashes and compresses; guests need processors, too."""


def lane_count(cores: int, link_mbit_s: int | None) -> int:
    """Lanes for a host with so many processors at a link of this speed (None: not known)."""
    wanted = LANES_UNKNOWN_LINK if link_mbit_s is None else -(-link_mbit_s // LANE_MBIT_S)
    return max(1, min(wanted, cores // CORES_A_LANE, LANES_MAX))
