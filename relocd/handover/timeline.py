"""What happened in a relocation and when, as its history shows it: bounded, however long the relocation takes."""

from __future__ import annotations

import enum

from attrs import define, field, frozen


class MomentKind(enum.StrEnum):
    """What a moment tells; its ``detail`` depends on it (docs/control.md, "Timeline")."""

    STATE = "state"  # the hand-over is in another state
    PHASE = "phase"  # what the operator is shown
    ROUND = "round"  # another pass over the dirty pages
    CHECKS = "checks"  # the preflight's verdicts
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


#: Samples taken at one pace, at most; then the pace is halved.
MAX_SAMPLES = 600

#: Other moments that are kept, at most: a relocation that asks a dead peer for weeks must not fill the disk.
MAX_MOMENTS = 2000


@define
class Timeline:
    """Collects moments; ``take_new`` hands out those that are not on disk yet, each with its number."""

    _new: list[tuple[int, Moment]] = field(factory=list)
    _count: int = 0
    _samples: int = 0
    _stride: int = 1
    _offered: int = 0

    def add(self, at_s: float, kind: MomentKind, **detail: object) -> None:
        """Note that something happened; too many of one kind are thinned out."""
        if kind is MomentKind.SAMPLE and not self._wants_sample():
            return
        if self._count < MAX_MOMENTS:
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

    def _wants_sample(self) -> bool:
        self._offered += 1
        if self._offered % self._stride:
            return False
        self._samples += 1
        if self._samples == MAX_SAMPLES:
            self._samples = 0
            self._stride *= 2
        return True
