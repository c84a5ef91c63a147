"""Steers an outgoing relocation: measures it, asks for the verdict on each round, and carries that out."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from attrs import frozen
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from relocd.convergence.terms import Terms
from relocd.convergence.verdict import Facts, Judge, Verdict, VerdictKind
from relocd.daemon.bandwidth import Bandwidth
from relocd.daemon.carriers import Carrier, closing_all
from relocd.daemon.context import Context
from relocd.daemon.report import Report
from relocd.daemon.turns import Turns
from relocd.drivers.base import Outgoing
from relocd.errors import Cancelled, DriverError, StreamError
from relocd.handover.machine import Failure
from relocd.handover.timeline import MomentKind
from relocd.model import Progress


@frozen
class Controls:
    """What holds for one relocation, and what it shares with the others of this host."""

    terms: Terms
    bandwidth: Bandwidth
    turns: Turns


class Steering:
    """One relocation's. ``note`` puts a moment in its timeline, ``fail`` ends it if it is not decided yet."""

    log = Logger()

    def __init__(
        self,
        context: Context,
        controls: Controls,
        outgoing: Outgoing,
        report: Report,
        note: Callable[..., None],
        fail: Callable[[Failure], None],
    ) -> None:
        self._reactor = context.reactor
        self._terms, self._bandwidth, self._turns = controls.terms, controls.bandwidth, controls.turns
        self._outgoing = outgoing
        self._report = report
        self._note = note
        self._fail = fail
        self._judge = Judge(controls.terms)
        self._live = False
        self._round = 0
        self._told: tuple[object, ...] = _gist(self._judge.nothing_yet())
        self._timer: IDelayedCall | None = None
        self._ended = False

    async def turn(self, phase: Callable[[str], None]) -> None:
        """Wait for this relocation's turn, or its end. With the turn begins the time that it may take."""
        if self._ended:
            return
        if self._turns.has_to_wait():
            phase("queue")
        await self._turns.come(self._report.relocation)
        if self._terms.max_duration_s and not self._ended:
            self._timer = self._reactor.callLater(self._terms.max_duration_s, self._expired)

    @property
    def limit_bytes_s(self) -> int:
        """The most that it will ever be allowed to send in a second; 0 for no limit."""
        caps = (self._terms.max_bandwidth_bytes_s, self._bandwidth.total())
        return min((cap for cap in caps if cap), default=0)

    def sends(self, carrier: Carrier) -> None:
        """The carrier has its lanes: from now on it may take its share of the host's bandwidth."""

        def apply(bytes_per_s: int) -> None:
            self._report.limited(bytes_per_s)
            with contextlib.suppress(StreamError):  # it has ended, which others see to
                carrier.limit(bytes_per_s)

        self._bandwidth.join(self._report.relocation, self._terms.max_bandwidth_bytes_s, apply)

    def has_sent(self) -> None:
        """Nothing more is sent, or will be."""
        self._bandwidth.leave(self._report.relocation)

    def decided(self) -> None:
        """The relocation is decided: it takes as long as it takes. Idempotent."""
        self._ended = True
        self.has_sent()
        if self._timer is not None and self._timer.active():
            self._timer.cancel()

    def end(self) -> None:
        """It is over, as far as it needs this host's processors: the next one's turn comes. Idempotent.

        That is when the domain runs at the target: until then the processes that the next one starts would lengthen
        its blackout.
        """
        self.decided()
        self._turns.leave(self._report.relocation)

    async def start(self, carrier: Carrier, channels: int, *, live: bool) -> None:
        """Have the hypervisor stream the domain, over so many channels, to the carrier."""
        self._live = live
        with (
            await self._outgoing.start(
                live=live,
                downtime_limit_ms=self._judge.downtime_limit_ms,
                may_throttle=self._terms.throttle,
                channels=channels,
            ) as stream,
            closing_all(self._outgoing.channels()) as ends,
        ):
            carrier.stream(stream, ends)

    async def measure(self) -> Progress | None:
        """Take note of where the relocation is and judge a round that has begun. None if nobody can tell."""
        try:
            progress = await self._outgoing.progress()
        except DriverError:
            return None  # those who watch the stream hear of it too, and they decide
        if progress.round > self._report.rounds:
            self._note(MomentKind.ROUND, **self._report.round_facts(progress))
        self._report.progress(progress)
        self._note(MomentKind.SAMPLE, **self._report.sample())
        if self._judges and progress.round > self._round:
            self._round = progress.round
            await self._obey(self._judge.judge(self._facts(progress, begins=True)))
        return progress

    @property
    def _judges(self) -> bool:
        """Whether anything can be done about rounds that do not shrink."""
        return self._live and self._outgoing.steerable

    def _facts(self, progress: Progress, *, begins: bool) -> Facts:
        return Facts(
            round=progress.round,
            remaining_bytes=(begins and progress.round_bytes) or progress.remaining_bytes,
            dirty_rate_bytes_s=progress.dirty_rate_bytes_s,
            link_rate_bytes_s=self._report.memory_rate_bytes_s,
            elapsed_s=self._report.elapsed_s,
        )

    async def _obey(self, verdict: Verdict) -> None:
        self._tell(verdict)
        if verdict.kind is VerdictKind.GIVE_UP:
            self._give_up(verdict)
        elif verdict.kind is not VerdictKind.CONTINUE:
            await self._adjust(verdict)

    async def _adjust(self, verdict: Verdict) -> None:
        try:
            await self._outgoing.adjust(
                downtime_limit_ms=verdict.downtime_limit_ms, throttle_percent=verdict.throttle_percent
            )
        except DriverError as error:
            self.log.warn(
                "{id}: the verdict could not be carried out: {error}", id=self._report.relocation, error=error
            )

    def _expired(self) -> None:
        """The time is up. What there is to say is what was measured last."""
        facts = self._facts(self._report.last_progress, begins=False)
        if self._judges and self._report.phase_name == "memory" and facts.round:
            verdict = self._judge.expired(facts)
            self._tell(verdict)
            self._give_up(verdict)
            return
        text = (
            f"it was not done within {self._terms.max_duration_s:g} s: it was at '{self._report.phase_name}'"
        )
        if facts.round:
            text += f", {facts.movement}"
        hint = "The domain runs on here. Allow it more time, or find out what holds it up."
        self._fail(Failure(Cancelled.code, text, hint))

    def _tell(self, verdict: Verdict) -> None:
        """Those who wait hear each verdict; log and timeline only those that change something."""
        self._report.judged(verdict)
        if _gist(verdict) == self._told:
            return
        self._told = _gist(verdict)
        self.log.info(
            "{id}: {kind}: {text}", id=self._report.relocation, kind=verdict.kind, text=verdict.text
        )
        self._note(
            MomentKind.VERDICT,
            verdict=verdict.kind.value,
            text=verdict.text,
            downtime_limit_ms=verdict.downtime_limit_ms,
            throttle_percent=verdict.throttle_percent,
        )

    def _give_up(self, verdict: Verdict) -> None:
        self._fail(Failure(Cancelled.code, verdict.text, f"The domain runs on here. {verdict.hint}"))


def _gist(verdict: Verdict) -> tuple[object, ...]:
    """A verdict without its numbers of the moment."""
    return verdict.kind, verdict.downtime_limit_ms, verdict.throttle_percent
