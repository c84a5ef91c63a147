"""What a client of the guest sees of a move, from its echoes."""

from __future__ import annotations

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from tests.bench.figures import Curve
from tests.scene import SPARE_S
from tests.testbed.udp import UdpEchoClient

ECHO_INTERVAL_MS = 4.0
"""How fine a blackout is seen. An echo costs an emulated guest a quarter of a millisecond of processor time: at one a
millisecond the bench would measure how two moves stand a flood."""

SILENCE_MIN_MS = 5 * ECHO_INTERVAL_MS
SILENCES_MAX = 100


@frozen
class Seen:
    """The gap around the switchover, and the longest gap of the move, wherever it lies."""

    blackout_ms: float
    gap_ms: float


def see(udp: UdpEchoClient, began_s: float, switchover_s: float, ended_s: float) -> Seen:
    """Of a move that has ended; times are those of ``time.monotonic()``. Waits for the first echo after its end."""
    udp.wait_echo_after(ended_s)
    return Seen(udp.blackout_ms(switchover_s - SPARE_S, ended_s), udp.blackout_ms(began_s, ended_s))


def silences(echoes_s: NDArray[np.float64], began_s: float, ended_s: float) -> Curve:
    """The longest times without an echo that reach into a move, in order: seconds since it began, and length in ms.

    Not those shorter than a few echoes, which are the machine's, and a hundred at most.
    """
    first, last = np.searchsorted(echoes_s, [began_s, ended_s])
    echoes_s = echoes_s[max(0, int(first) - 1) : int(last) + 1]
    lengths_ms = np.diff(echoes_s) * 1000
    longest = np.argsort(-lengths_ms)[:SILENCES_MAX]
    chosen = np.sort(longest[lengths_ms[longest] >= SILENCE_MIN_MS])
    return tuple((max(0.0, float(echoes_s[at] - began_s)), float(lengths_ms[at])) for at in chosen)
