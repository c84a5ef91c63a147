"""The verdict on a live relocation, round by round: go on, allow a longer pause, slow the guest down, end it.

A relocation begins with a short pause to aim for, which keeps the blackout short. Only when rounds stop shrinking the
aim is raised, step by step up to the maximum; when that does not help and the administrator allows it, the guest is
throttled, step by step too. Neither is ever taken back. Pure: facts in, verdicts out, each with its reason.
"""

from __future__ import annotations

import enum
import math

from attrs import evolve, frozen

from relocd.convergence.terms import DOWNTIME_MAX_MS, Terms

SHRINKS = 0.9
"""A round shrinks if it begins with less than this part of the smallest one before."""
STEP = 2
"""The pause to aim for grows by this factor."""
PATIENCE = 3
"""After so many rounds in a row that did not shrink the pause that is needed is allowed at once, if it may be."""
MARGIN = 1.25
"""What is allowed or advised is so many times the predicted pause: neither rate stands still."""
THROTTLE_PERCENT = (20, 40, 60, 80, 95)
"""How much of their time a guest's processors lose, step by step. Beyond that they sleep so long at a stretch that
QEMU, which waits for them between rounds under TCG, takes longer for it than the rounds get shorter."""
THROTTLE_SETTLE_S = 4.0
"""Time for a step to show: QEMU takes it up at the second of its own looks, which are a second or more apart."""


class VerdictKind(enum.StrEnum):
    """What is to be done."""

    CONTINUE = "continue"
    RAISE_DOWNTIME = "raise-downtime"
    THROTTLE = "throttle"
    SWITCH_OVER = "switch-over"  # by allowing the pause that is needed now
    GIVE_UP = "give-up"


@frozen
class Facts:
    """What is known when a round begins. Rates are in bytes per second, of the domain's memory; 0 is not known."""

    round: int
    remaining_bytes: int
    dirty_rate_bytes_s: int
    link_rate_bytes_s: int
    elapsed_s: float

    @property
    def predicted_ms(self) -> int | None:
        """How long the domain would stand still if it were paused now."""
        if not self.link_rate_bytes_s:
            return None
        return math.ceil(self.remaining_bytes * 1000 / self.link_rate_bytes_s)

    def __str__(self) -> str:
        """The numbers, in words."""
        dirties = f"{_size(self.dirty_rate_bytes_s)}/s" if self.dirty_rate_bytes_s else "an unknown rate"
        return f"the guest dirties {dirties}, {self.movement}"

    @property
    def movement(self) -> str:
        """The numbers of a guest that stands still."""
        moves = f"{_size(self.link_rate_bytes_s)}/s" if self.link_rate_bytes_s else "nothing yet"
        left = f"{_size(self.remaining_bytes)} were left in round {self.round}"
        return f"the link moves {moves}; {left}, after {self.elapsed_s:.0f} s"


@frozen
class Verdict:
    """What to do, why, and what then holds. ``hint`` says what an administrator can do."""

    kind: VerdictKind
    text: str
    downtime_limit_ms: int
    throttle_percent: int = 0
    hint: str = ""


class Judge:
    """Judges one relocation. Ask ``judge`` when a round has begun, and ``expired`` when the time is up."""

    def __init__(self, terms: Terms) -> None:
        self._terms = terms
        self.downtime_limit_ms = terms.downtime_ms
        self.throttle_percent = 0
        self._smallest_bytes: int | None = None
        self._stalled = 0
        self._throttled_at_s = -THROTTLE_SETTLE_S

    def nothing_yet(self) -> Verdict:
        """What holds before the first round."""
        return self._verdict(VerdictKind.CONTINUE, "nothing is known yet")

    def judge(self, facts: Facts) -> Verdict:
        """The verdict on a round that begins."""
        self._compare(facts)
        if self._terms.max_duration_s and facts.elapsed_s >= self._terms.max_duration_s:
            return self.expired(facts)
        if self._terms.max_rounds and facts.round > self._terms.max_rounds:
            return self._last_round(facts)
        if not self._stalled:
            return self._verdict(VerdictKind.CONTINUE, f"the rounds shrink: {facts}")
        if self.downtime_limit_ms < self._terms.max_downtime_ms:
            return self._allow_more(facts)
        if facts.elapsed_s - self._throttled_at_s < THROTTLE_SETTLE_S:
            return self._verdict(VerdictKind.CONTINUE, f"the throttling has to show: {facts}")
        if self._terms.throttle and self.throttle_percent < THROTTLE_PERCENT[-1]:
            return self._throttle(facts)
        return self._verdict(VerdictKind.CONTINUE, f"it does not converge: {facts}", self._advice(facts))

    def expired(self, facts: Facts) -> Verdict:
        """The verdict when the time is up.

        The advice follows what rounds began with: of a round that is almost over little is left, whatever comes next.
        """
        limit = f"it was not done within {self._terms.max_duration_s:g} s"
        least_bytes = (self._smallest_bytes or 0) if facts.round > 1 else 0
        typical = evolve(facts, remaining_bytes=max(facts.remaining_bytes, least_bytes))
        return self._verdict(VerdictKind.GIVE_UP, f"{limit}: {facts}", self._advice(typical))

    def _compare(self, facts: Facts) -> None:
        """Does this round begin with clearly less than any before?"""
        before = self._smallest_bytes
        shrinks = before is None or facts.remaining_bytes < before * SHRINKS
        self._stalled = 0 if shrinks else self._stalled + 1
        self._smallest_bytes = min(facts.remaining_bytes, facts.remaining_bytes if before is None else before)

    def _last_round(self, facts: Facts) -> Verdict:
        if self.downtime_limit_ms < self._terms.max_downtime_ms and self._affordable(facts):
            return self._switch_over(facts)
        text = f"it did not converge within {self._terms.max_rounds} rounds: {facts}"
        return self._verdict(VerdictKind.GIVE_UP, text, self._advice(facts))

    def _allow_more(self, facts: Facts) -> Verdict:
        if self._stalled >= PATIENCE and self._affordable(facts):
            return self._switch_over(facts)
        self._raise_to(self.downtime_limit_ms * STEP)
        text = f"the rounds do not shrink, so the pause may last {self.downtime_limit_ms} ms: {facts}"
        return self._verdict(VerdictKind.RAISE_DOWNTIME, text)

    def _switch_over(self, facts: Facts) -> Verdict:
        predicted_ms = facts.predicted_ms or 0
        self._raise_to(max(self.downtime_limit_ms * STEP, math.ceil(predicted_ms * MARGIN)))
        text = f"it does not converge, and a pause of about {predicted_ms} ms, which is allowed, ends it: {facts}"
        return self._verdict(VerdictKind.SWITCH_OVER, text)

    def _throttle(self, facts: Facts) -> Verdict:
        self._throttled_at_s = facts.elapsed_s
        self.throttle_percent = next(step for step in THROTTLE_PERCENT if step > self.throttle_percent)
        text = f"the rounds do not shrink, so the guest is throttled by {self.throttle_percent} %: {facts}"
        return self._verdict(VerdictKind.THROTTLE, text)

    def _affordable(self, facts: Facts) -> bool:
        return facts.predicted_ms is not None and facts.predicted_ms <= self._terms.max_downtime_ms

    def _raise_to(self, limit_ms: int) -> None:
        self.downtime_limit_ms = min(self._terms.max_downtime_ms, limit_ms)

    def _verdict(self, kind: VerdictKind, text: str, hint: str = "") -> Verdict:
        return Verdict(kind, text, self.downtime_limit_ms, self.throttle_percent, hint)

    def _advice(self, facts: Facts) -> str:
        ways = [
            way for way in (self._longer_pause(facts), self._throttling(), "relocate without --live") if way
        ]
        text = ", or ".join(ways)
        return f"{text[0].upper()}{text[1:]}."

    def _longer_pause(self, facts: Facts) -> str:
        """Which knob to turn so that it would end in the state it is in, and how far."""
        if facts.predicted_ms is None:
            return ""
        needed_ms = _rounded_up(facts.predicted_ms * MARGIN)
        if needed_ms <= self._terms.max_downtime_ms:
            return "allow it more time"
        if needed_ms > DOWNTIME_MAX_MS:
            return ""
        if needed_ms <= self._terms.allowed_downtime_ms:
            return f"raise --max-downtime to {needed_ms}"
        return f"raise xen-relocation-max-downtime to {needed_ms} (it is {self._terms.allowed_downtime_ms})"

    def _throttling(self) -> str:
        return "" if self._terms.throttle else "allow throttling (xen-relocation-throttle)"


def _rounded_up(value: float) -> int:
    """To two digits that say something: advice of 4217 ms looks more exact than it is."""
    unit = int(10 ** max(0, len(str(math.ceil(value))) - 2))
    return math.ceil(value / unit) * unit


def _size(size_bytes: int) -> str:
    """In units of a thousand, as links are rated."""
    for unit, name in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if size_bytes >= unit:
            return f"{size_bytes / unit:.3g} {name}"
    return f"{size_bytes} bytes"
