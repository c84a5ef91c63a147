"""What is known of the link to a peer before anything is sent. Everything here may block and runs in a thread."""

from __future__ import annotations

import os

import psutil

from relocd.pages.channel_count import channel_count
from relocd.pages.lane_count import lane_count


def lanes_for(address: str) -> int:
    """How many lanes this host is good for, on connections of its address ``address``."""
    return lane_count(len(os.sched_getaffinity(0)), link_mbit_s(address))


def channels_for(address: str, limit_bytes_s: int) -> int:
    """How many channels of the hypervisor are worth while on connections of this address, under such a limit."""
    return channel_count(link_mbit_s(address), limit_bytes_s)


def link_mbit_s(address: str) -> int | None:
    """Speed of the interface that has this address, in Mbit/s; None if it does not say.

    Connections of that address go through it, unless the host's routes are asymmetric. Bridges, bonds and VLANs tell
    what is below them.
    """
    for name, addresses in psutil.net_if_addrs().items():
        if any(known.address.partition("%")[0] == address for known in addresses):
            stats = psutil.net_if_stats().get(name)
            return stats.speed or None if stats else None
    return None
