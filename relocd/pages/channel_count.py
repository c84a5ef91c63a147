"""Whether the hypervisor itself compresses and spreads its stream over channels, and over how many.

Between equal hypervisors that can do it this is several times cheaper than anything that looks at pages outside of
them. What it gives up is control over what is under way, so it is for links that carry that in no time.
"""

from __future__ import annotations

from typing import Final

CHANNELS: Final = 4
"""QEMU's threads hand over one packet at a time each: with its default of 2 they wait for each other (1 Gbit/s, two
processors: up to 40 s instead of 3.3), more than 4 gain nothing."""
LINK_MBIT_S_MIN: Final = 1000
"""What is under way, in QEMU's packets and the buffers between it and the lanes, is some 2 MB, all of which has to
arrive while the domain is paused: 17 ms at this speed [Mbit/s], 1.7 s at 10 Mbit/s."""
LIMIT_BYTES_S_MIN: Final = 100 << 20
"""The same for a bandwidth that somebody has limited [bytes/s]."""


def channel_count(link_mbit_s: int | None, limit_bytes_s: int) -> int:
    """Channels where nobody has said how many; 0 leaves everything to the page stream.

    ``link_mbit_s`` is None where it is not known, ``limit_bytes_s`` 0 where there is no limit.
    """
    slow_link = link_mbit_s is not None and link_mbit_s < LINK_MBIT_S_MIN
    slow_limit = 0 < limit_bytes_s < LIMIT_BYTES_S_MIN
    return 0 if slow_link or slow_limit else CHANNELS
