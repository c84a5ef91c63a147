"""What a relocation will take, from what was measured: arithmetic only.

A live relocation sends all memory in use, then what was dirtied meanwhile, and so on; it ends when the rest can be
sent within the downtime limit. With a constant dirty rate below the rate of sending these rounds are a geometric
series, whose ratio is that of the two rates. A round never finds more dirty than the guest writes to over and over,
its working set.

What is assumed and not measured is in ``Assumptions``.
"""

from __future__ import annotations

import enum

from attrs import asdict, field, frozen

from relocd.model import Load

_MIB = 1 << 20

#: More rounds than this are none to wait for, whether they shrink or not.
MAX_ROUNDS = 100

#: What the second of two equal spans adds to the dirtied memory, as a part of the first. Below the first one the
#: guest writes to the same memory all the time; below the second one how often cannot be told.
SAME_MEMORY, SAME_MEMORY_ALL = 0.5, 0.25


class Verdict(enum.StrEnum):
    """Does a live relocation come to its end by itself?"""

    CONVERGES = "converges"
    UNCERTAIN = "may-not-converge"
    HOPELESS = "does-not-converge"


@frozen
class Assumptions:
    """What is not measured. Rates in bytes per second.

    ``wire_share``: what compression leaves of memory, where the link is slow enough to be worth it.
    ``memory_rate_bytes_s``: as fast as hypervisors and carriers go on two processors, whatever the link. ``begin_s``:
    connections, checks, building the domain at the target. ``hand_over_s``: what the switchover takes beside the
    last round: device state, journals, the resume.
    """

    wire_share: float = 0.5
    memory_rate_bytes_s: int = 200 * _MIB
    begin_s: float = 0.6
    hand_over_s: float = 0.05

    @classmethod
    def of(cls, *, compressed: bool, by_hypervisor: bool) -> Assumptions:
        """Where pages are compressed, or not, and where the hypervisor does that in threads of its own."""
        if not compressed:
            return cls(wire_share=1.0)
        return cls(memory_rate_bytes_s=300 * _MIB) if by_hypervisor else cls()


@frozen
class Measured:
    """What a prediction rests on. Sizes in bytes, rates in bytes per second.

    ``working_set_bytes`` bounds what a round can find dirty; ``rate_is_least`` says that the guest may well dirty
    faster.
    """

    memory_in_use_bytes: int
    dirty_rate_bytes_s: int
    working_set_bytes: int
    rate_is_least: bool
    link_bytes_s: int

    @classmethod
    def of(cls, load: Load, link_bytes_s: int) -> Measured:
        """Read what a driver sampled."""
        one, two = load.dirtied_bytes
        added = (two - one) / one if one else 1.0
        bounded = added < SAME_MEMORY
        working_set_bytes = min(two if bounded else load.in_use_bytes, load.in_use_bytes)
        return cls(
            memory_in_use_bytes=load.in_use_bytes,
            dirty_rate_bytes_s=max(one, two // 2),
            working_set_bytes=working_set_bytes,
            rate_is_least=bounded and added < SAME_MEMORY_ALL and one > 0,
            link_bytes_s=link_bytes_s,
        )


@frozen
class Expected:
    """What one way to relocate will take. ``wire_bytes`` is what goes over the link."""

    duration_s: float
    downtime_ms: float
    wire_bytes: int
    rounds: int


@frozen
class Prediction:
    """``live`` is None if it does not come to an end by itself. ``sentences`` tell it to a person."""

    verdict: Verdict
    live: Expected | None
    offline: Expected
    measured: Measured
    downtime_limit_ms: int
    assumed: Assumptions
    sentences: tuple[str, ...] = field(factory=tuple)


def predict(measured: Measured, downtime_limit_ms: int, assumed: Assumptions | None = None) -> Prediction:
    """What a relocation will take. The link must be faster than nothing, else ValueError."""
    assumed = assumed or Assumptions()
    if measured.link_bytes_s <= 0:
        raise ValueError("nothing can be predicted for a link that carries nothing")
    rate_bytes_s = min(measured.link_bytes_s / assumed.wire_share, float(assumed.memory_rate_bytes_s))
    rounds = _rounds(measured, rate_bytes_s, downtime_limit_ms / 1000)
    live = None if rounds is None else _expected(rounds, rate_bytes_s, assumed, paused_from=len(rounds) - 1)
    offline = _expected([float(measured.memory_in_use_bytes)], rate_bytes_s, assumed, paused_from=0)
    doubt = "" if live is None else _doubt(measured, rate_bytes_s, downtime_limit_ms, assumed)
    verdict = Verdict.HOPELESS if live is None else Verdict.UNCERTAIN if doubt else Verdict.CONVERGES
    sentences = _sentences(live, offline, measured, rate_bytes_s, downtime_limit_ms)
    if doubt:
        sentences = (*sentences, doubt)
    return Prediction(verdict, live, offline, measured, downtime_limit_ms, assumed, sentences)


def _rounds(measured: Measured, rate_bytes_s: float, limit_s: float) -> list[float] | None:
    """Memory that each round sends, in bytes; None if they do not come to an end."""
    rounds = [float(measured.memory_in_use_bytes)]
    while rounds[-1] > rate_bytes_s * limit_s:
        if len(rounds) == MAX_ROUNDS:
            return None
        dirtied = rounds[-1] / rate_bytes_s * measured.dirty_rate_bytes_s
        rounds.append(min(dirtied, float(measured.working_set_bytes)))
    return rounds


def _doubt(measured: Measured, rate_bytes_s: float, limit_ms: int, assumed: Assumptions) -> str:
    """What may hinder a relocation that should converge; empty if nothing is known."""
    again = _size(measured.working_set_bytes)
    if measured.rate_is_least and measured.working_set_bytes / rate_bytes_s * 1000 > limit_ms:
        return (
            f"It may not converge: the guest writes to the same {again} over and over, and how fast cannot be seen "
            "from outside."
        )
    raw_bytes_s = min(measured.link_bytes_s, assumed.memory_rate_bytes_s)
    if _rounds(measured, raw_bytes_s, limit_ms / 1000) is None:
        return "It may not converge: only if the guest's memory compresses, which was not looked at."
    return ""


def _expected(
    rounds: list[float], rate_bytes_s: float, assumed: Assumptions, *, paused_from: int
) -> Expected:
    whole, paused = sum(rounds), sum(rounds[paused_from:])
    return Expected(
        duration_s=round(assumed.begin_s + whole / rate_bytes_s + assumed.hand_over_s, 3),
        downtime_ms=round((paused / rate_bytes_s + assumed.hand_over_s) * 1000, 1),
        wire_bytes=round(whole * assumed.wire_share),
        rounds=len(rounds),
    )


def _sentences(
    live: Expected | None,
    offline: Expected,
    measured: Measured,
    rate_bytes_s: float,
    limit_ms: int,
) -> tuple[str, ...]:
    least = "at least " if measured.rate_is_least else ""
    facts = (
        f"The guest uses {_size(measured.memory_in_use_bytes)} of memory and dirties {least}"
        f"{_size(measured.dirty_rate_bytes_s)}/s; the link carries {_size(measured.link_bytes_s)}/s."
    )
    paused = (
        f"Offline: about {offline.duration_s:.1f} s, all but the beginning of it downtime, "
        f"{_size(offline.wire_bytes)} on the wire."
    )
    if live is None:
        rest_ms = measured.working_set_bytes / rate_bytes_s * 1000
        why = (
            f"Live: it will not converge. {_size(rate_bytes_s)} of memory can be sent in a second, so "
            f"up to {_size(measured.working_set_bytes)} stay dirty however many rounds there are, which is "
            f"{rest_ms:.0f} ms of downtime; the limit is {limit_ms} ms."
        )
        return facts, why, paused
    told = (
        f"Live: about {live.duration_s:.1f} s, downtime about {live.downtime_ms:.0f} ms, "
        f"{_size(live.wire_bytes)} on the wire, {live.rounds} {'round' if live.rounds == 1 else 'rounds'}."
    )
    return facts, told, paused


def _size(size_bytes: float) -> str:
    """As ``relocctl`` prints sizes."""
    if size_bytes < _MIB:
        return f"{size_bytes / 1024:.1f} KiB"
    return (
        f"{size_bytes / _MIB:.1f} MiB" if size_bytes < 1024 * _MIB else f"{size_bytes / _MIB / 1024:.1f} GiB"
    )


def prediction_object(prediction: Prediction) -> dict[str, object]:
    """The object of docs/control.md."""
    return {
        "verdict": prediction.verdict.value,
        "live": asdict(prediction.live) if prediction.live else None,
        "offline": asdict(prediction.offline),
        "measured": asdict(prediction.measured),
        "downtime_limit_ms": prediction.downtime_limit_ms,
        "assumed": asdict(prediction.assumed),
        "sentences": list(prediction.sentences),
    }
