"""Whether to compress a batch, and how hard: decided by what was measured, not by what was expected.

Four levels are known: 0 (as it is), -5, 1 and 3 of zstd. For each the choice knows the rate at which it moved
content lately, waiting for the hypervisor not counted. It stays with the best and tries another one now and
then, less and less often while the answer stays the same. When two are about as fast the cheaper one wins, so
a link that is faster than the compressor gets raw pages, and so does a target that cannot take more anyway.

Apart from that, batches that did not shrink (a guest with encrypted or compressed memory) make the next ones
go raw. No clock here: the caller says what time it is.
"""

from __future__ import annotations

import enum
from typing import Final

LEVELS: Final = (0, -5, 1, 3)
"""From cheap to dear. zstd 1 fits most content; -5 takes half the time and is as good where content repeats
in long stretches; 3 pays on slow links only."""
_START: Final = 2

WORTH_BYTES: Final = 512
"""Smaller payloads are not worth a compressor's start."""
DENSE_RATIO: Final = 0.93
"""A batch that shrinks to more than this part of itself goes raw: unpacking costs more than the rest of the
bytes."""
DENSE_SKIP_MAX: Final = 16
"""After dense batches, at most this many go raw before the next one is tried."""

SETTLE_BYTES: Final = 2 << 20
SETTLE_S: Final = 0.01
"""After a change of level this much content or time, whichever is first, does not count: buffers fill or drain."""
WINDOW_BYTES: Final = 16 << 20
WINDOW_S: Final = 0.1
"""A measurement ends after this much content or time, whichever is first. A shorter one would mostly see what else
the processors do just then."""
HOPELESS: Final = 0.5
HOPELESS_S: Final = 0.01
"""A trial that reaches less than this part of the rate so far, for this long, is not worth its time."""
HOLD_BYTES: Final = 16 << 20
HOLD_BYTES_MAX: Final = 2 << 30
HOLD_GROWTH: Final = 4
"""Content between two trials: at first, at most, and how it grows with each trial that changed nothing (twice over
with one that was hopeless)."""
CHEAPER_IS_ENOUGH: Final = 0.9
DEARER_MUST_GAIN: Final = 1.1
CHANGED: Final = 0.5
"""Ratios of rates. A fall by the last one says that the link is not what it was, and old answers count no more."""


class Compression(enum.StrEnum):
    """What an administrator can ask for."""

    AUTO = "auto"
    NONE = "none"
    ZSTD = "zstd"


class Choice:
    """Chooses levels for one stream. Ask ``level`` and ``skips`` before a batch, tell ``shrunk`` and ``moved`` what
    became of it."""

    def __init__(self, compression: Compression) -> None:
        self._compression = compression
        self._density = _Density()
        self._ladder = _Ladder()

    def level(self, decoded_bytes: int) -> int:
        """The zstd level that a batch of this size is worth; 0 for none."""
        if self._compression is Compression.NONE or decoded_bytes < WORTH_BYTES:
            return 0
        return self._ladder.level if self._compression is Compression.AUTO else LEVELS[_START]

    def skips(self) -> bool:
        """Whether to pass over a batch that is worth a level, since those before it did not shrink."""
        return self._density.skips()

    def shrunk(self, decoded_bytes: int, wire_bytes: int) -> bool:
        """Take note of a compressed batch; say whether to send it compressed."""
        return self._density.accepts(wire_bytes / decoded_bytes)

    def moved(self, decoded_bytes: int, now_s: float, idle_s: float) -> None:
        """A batch was handed to its lane. ``idle_s``: seconds spent waiting for the hypervisor since the
        start."""
        if self._compression is Compression.AUTO:
            self._ladder.moved(decoded_bytes, now_s - idle_s)


class _Density:
    """Skips batches while the content does not shrink: 1, 2, 4, up to DENSE_SKIP_MAX between two samples."""

    def __init__(self) -> None:
        self._left = 0
        self._span = 0

    def skips(self) -> bool:
        if not self._left:
            return False
        self._left -= 1
        return True

    def accepts(self, ratio: float) -> bool:
        if ratio <= DENSE_RATIO:
            self._span = 0
            return True
        self._span = min(2 * self._span, DENSE_SKIP_MAX) or 1
        self._left = self._span
        return False


class _Ladder:
    """Climbs between the levels. ``busy_s`` is a clock that stands still while the hypervisor has nothing to
    send."""

    def __init__(self) -> None:
        self._home = self._at = _START
        self._upwards = True  # so that the first trial is of less compression
        self._hold_bytes = HOLD_BYTES
        self._held_bytes = 0
        self._home_rate = 0.0
        self._measure = _Measure(0.0)

    @property
    def level(self) -> int:
        return LEVELS[self._at]

    def moved(self, decoded_bytes: int, busy_s: float) -> None:
        self._held_bytes += decoded_bytes
        rate = self._measure.add(decoded_bytes, busy_s)
        if rate is None:
            return
        if self._at != self._home:
            self._judge(rate)
        else:
            if rate < CHANGED * self._home_rate:
                self._hold_bytes = HOLD_BYTES
            self._home_rate = rate
            if self._held_bytes >= self._hold_bytes:
                self._try_another()

    def _judge(self, rate: float) -> None:
        margin = CHEAPER_IS_ENOUGH if self._at < self._home else DEARER_MUST_GAIN
        if rate >= margin * self._home_rate:
            self._hold_bytes = HOLD_BYTES
            self._home_rate = rate
            self._home = self._at
            beyond = self._home + (1 if self._upwards else -1)  # what helped may help once more
            self._go(beyond if 0 <= beyond < len(LEVELS) else self._home)
        else:
            growth = HOLD_GROWTH**2 if rate < HOPELESS * self._home_rate else HOLD_GROWTH
            self._hold_bytes = min(growth * self._hold_bytes, HOLD_BYTES_MAX)
            self._go(self._home)

    def _try_another(self) -> None:
        self._upwards = not self._upwards if 0 < self._home < len(LEVELS) - 1 else self._home == 0
        self._go(self._home + (1 if self._upwards else -1))

    def _go(self, index: int) -> None:
        self._at = index
        self._held_bytes = 0
        self._measure = _Measure(0.0 if index == self._home else HOPELESS * self._home_rate)


class _Measure:
    """The rate over one window of content, after the ways have settled; then over the next window."""

    def __init__(self, hopeless_rate: float) -> None:
        self._hopeless_rate = hopeless_rate
        self._settled = False
        self._bytes = 0
        self._since_s: float | None = None

    def add(self, decoded_bytes: int, busy_s: float) -> float | None:
        """Count; return content bytes per busy second when a window is full, or cannot become a good one."""
        if self._since_s is None:
            self._since_s = busy_s
        self._bytes += decoded_bytes
        elapsed_s = busy_s - self._since_s
        rate = self._bytes / max(elapsed_s, 1e-6)
        if not self._settled:
            if self._bytes >= SETTLE_BYTES or elapsed_s >= SETTLE_S:
                self._settled = True
                self._bytes, self._since_s = 0, busy_s
            return None
        hopeless = elapsed_s >= HOPELESS_S and rate < self._hopeless_rate
        if self._bytes < WINDOW_BYTES and elapsed_s < WINDOW_S and not hopeless:
            return None
        self._bytes, self._since_s = 0, busy_s
        return rate
