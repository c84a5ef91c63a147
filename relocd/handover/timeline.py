"""What happened in a relocation and when, as its history shows it: bounded, however long the relocation takes."""

from __future__ import annotations

import enum
from collections import Counter

from attrs import define, field, frozen


class MomentKind(enum.StrEnum):
    """What a moment tells; its ``detail`` depends on it (docs/control.md, "Timeline")."""

    STATE = "state"  # the hand-over is in another state
    PHASE = "phase"  # what the operator is shown
    ROUND = "round"  # another pass over the dirty pages
    VERDICT = "verdict"  # whether it converges, and what is done about it
    CHECKS = "checks"  # the preflight's verdicts
    PREDICTION = "prediction"  # what was predicted shortly before it began
    PEER = "peer"  # the other host was asked what it knows
    OPERATOR = "operator"  # somebody cancelled or resolved
    FAILURE = "failure"  # why it ends
    SAMPLE = "sample"  # counters, taken regularly


@frozen
class Moment:
    """One line of a timeline. ``at_s`` is Unix time; ``detail`` holds what JSON can hold."""

    at_s: float
    kind: MomentKind
    detail: dict[str, object] = field(factory=dict)


#: Samples taken at full pace; then half as often for half as many, and so on.
MAX_SAMPLES = 600

#: Moments of any other kind, at most: a link that flaps for weeks must not fill the disk.
MAX_OF_A_KIND = 500


@define
class Timeline:
    """Collects moments; ``take_new`` hands out those that are not on disk yet, each with its number."""

    _new: list[tuple[int, Moment]] = field(factory=list)
    _count: int = 0
    _of_kind: Counter[MomentKind] = field(factory=Counter)
    _stride: int = 1
    _room: int = MAX_SAMPLES
    _offered: int = 0

    def add(self, at_s: float, kind: MomentKind, **detail: object) -> None:
        """Note that something happened; too many of one kind are thinned out."""
        if not (self._wants_sample() if kind is MomentKind.SAMPLE else self._wants(kind)):
            return
        self._new.append((self._count, Moment(at_s, kind, detail)))
        self._count += 1

    def take_new(self) -> tuple[tuple[int, Moment], ...]:
        """What was added since the last call; numbers count from 0 on."""
        new, self._new = self._new, []
        return tuple(new)

    def give_back(self, moments: tuple[tuple[int, Moment], ...]) -> None:
        """They could not be written; the next ``take_new`` has them again."""
        self._new = [*moments, *self._new]

    def go_on(self, count: int) -> None:
        """So many moments are on disk from a former daemon."""
        self._count = max(self._count, count)

    def _wants(self, kind: MomentKind) -> bool:
        self._of_kind[kind] += 1
        return self._of_kind[kind] <= MAX_OF_A_KIND

    def _wants_sample(self) -> bool:
        self._offered += 1
        if self._offered % self._stride:
            return False
        self._room -= 1
        if not self._room:
            self._room = MAX_SAMPLES // 2
            self._stride *= 2
        return True
