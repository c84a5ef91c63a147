"""The messages that measure a link."""

from __future__ import annotations

from attrs import frozen

from relocd.wire.forms import Form

#: Of a measurement of the link, at most.
MAX_MEASURE_BYTES = 1 << 27
MAX_MEASURE_MS = 2000


@frozen
class Measure:
    """After ``ready``, bytes without meaning follow: so many, and for so long, at most. Needs the feature."""

    size_bytes: int
    duration_ms: int


@frozen
class Measured:
    """How many of them came in what time; a slow beginning does not count."""

    size_bytes: int
    duration_us: int


MEASURING_FORMS: dict[type, Form] = {
    Measure: (
        "measure",
        lambda m: (("bytes", m.size_bytes), ("milliseconds", m.duration_ms)),
        lambda f: Measure(
            f.number("bytes", 1, MAX_MEASURE_BYTES), f.number("milliseconds", 1, MAX_MEASURE_MS)
        ),
    ),
    Measured: (
        "measured",
        lambda m: (("bytes", m.size_bytes), ("microseconds", m.duration_us)),
        lambda f: Measured(f.number("bytes", 0, 1 << 50), f.number("microseconds", 0, 1 << 40)),
    ),
}
