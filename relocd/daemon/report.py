"""What an outgoing relocation tells the people who wait for it: phases, progress, and in the end one outcome."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from attrs import frozen
from twisted.internet.defer import Deferred

from relocd.carrier.control import CarrierProgress
from relocd.convergence.verdict import Verdict
from relocd.errors import (
    Cancelled,
    DriverError,
    JournalError,
    OutcomeUnknown,
    PeerUnreachable,
    ProtocolError,
    Refused,
    RelocdError,
    StreamError,
    Untrusted,
)
from relocd.handover.machine import Failure
from relocd.handover.record import Record
from relocd.model import OutcomeKind, Progress
from relocd.pages.choice import LEVELS

#: Called with each progress object (docs/control.md).
Watcher = Callable[[dict[str, object]], None]

#: Exit codes by failure code; anything else exits with RelocdError's own.
EXIT_CODES: dict[str, int] = {
    kind.code: kind.exit_code
    for kind in (
        ProtocolError,
        PeerUnreachable,
        Refused,
        StreamError,
        DriverError,
        JournalError,
        Cancelled,
        OutcomeUnknown,
        Untrusted,
    )
}

#: Share of the whole that is done when a phase begins, in percent. Memory fills the room up to the switchover.
PHASE_PERCENT = {
    "queue": 0.0,
    "connect": 0.0,
    "preflight": 1.0,
    "files": 2.0,
    "memory": 4.0,
    "switchover": 96.0,
    "commit": 98.0,
    "resume": 99.0,
}

#: The wire rate is taken over this many seconds.
RATE_WINDOW_S = 1.0


@frozen
class _Carried:
    """The carrier's counters at a moment of the monotonic clock."""

    at: float
    wire_bytes: int
    memory_bytes: int


@frozen
class Ending:
    """How it ended: the outcome object of docs/control.md, and the exit code for whoever waits."""

    outcome: dict[str, object]
    exit_code: int


class Report:
    """Collects the numbers of one relocation on its source. Times are the source's monotonic clock."""

    def __init__(self, record: Record, host: str) -> None:
        self.was_refused = False
        self.rounds = 0
        self.relocation = record.relocation
        self.last_progress = Progress()
        self._facts = {
            "relocation": str(record.relocation),
            "domain": record.domain.name,
            "uuid": str(record.domain.uuid),
            "host": host,
            "live": record.live,
        }
        self._began = time.monotonic() - (time.time() - record.began_s)  # which may be a former daemon's
        self.phase_name = "connect"
        self._percent = 0.0
        self._verdict: Verdict | None = None
        self._limit_bytes_s = 0
        self._channels = 0
        self._carried: deque[_Carried] = deque([_Carried(self._began, 0, 0)])
        self._counters = CarrierProgress()
        self._paused: float | None = None
        self._resumed: float | None = None
        self._heard: float | None = None
        self._reasons: tuple[tuple[str, str], ...] = ()
        self._watchers: list[Watcher] = []
        self._waiters: list[Deferred[Ending]] = []
        self._ending: Ending | None = None
        self._finished = False

    # -- what the relocation reports -------------------------------------------------------------------------------

    def phase(self, name: str) -> None:
        """A new phase begins."""
        self.phase_name = name
        self._percent = max(self._percent, PHASE_PERCENT[name])
        self._publish()

    def progress(self, progress: Progress) -> None:
        """The hypervisor's counters."""
        self.last_progress = progress
        self.rounds = max(self.rounds, progress.round)
        if progress.total_bytes:
            done = 1.0 - min(1.0, progress.remaining_bytes / progress.total_bytes)
            room = PHASE_PERCENT["switchover"] - PHASE_PERCENT["memory"]
            self._percent = max(self._percent, PHASE_PERCENT["memory"] + room * done)
        self._publish()

    def carried(self, counters: CarrierProgress) -> None:
        """The carrier's counters, all cumulative."""
        now = time.monotonic()
        self._counters = counters
        # What the hypervisor compresses itself is less in its stream than in the guest's memory.
        squeezed = counters.saved_compression_bytes if self._channels else 0
        self._carried.append(_Carried(now, counters.wire_bytes, counters.stream_bytes + squeezed))
        while len(self._carried) > 2 and self._carried[1].at < now - RATE_WINDOW_S:
            self._carried.popleft()

    def promised(self, channels: int) -> None:
        """So many channels of the hypervisor carry its memory, 0 for none."""
        self._channels = channels

    def judged(self, verdict: Verdict) -> None:
        """Whether it converges, and what is done about it."""
        self._verdict = verdict
        self._publish()

    def limited(self, bytes_per_s: int) -> None:
        """What it may put on the wire from now on, 0 for no limit."""
        self._limit_bytes_s = bytes_per_s

    def paused(self) -> None:
        """The domain stands still, from the first time this is called."""
        self._paused = self._paused or time.monotonic()

    def resumed(self) -> None:
        """The target has said that the domain runs there; since when, if it said that."""
        self._resumed = self._resumed or time.monotonic()

    def arrived(self, ran_s: float, heard_us: int | None) -> None:
        """It says so now: it has run for so long, and sent its first frame so long ago, if one was seen."""
        self._resumed = time.monotonic() - ran_s
        self._heard = None if heard_us is None else time.monotonic() - heard_us / 1e6

    def refused(self, error: Refused) -> None:
        """The target said no."""
        self.was_refused = True
        self._reasons = error.reasons

    def unknown(self) -> None:
        """The target has not confirmed for long: those who wait are told so, the work goes on."""
        if self._ending is not None:
            return
        error = OutcomeUnknown(
            "the hand-over is decided and the target has not confirmed it; both hosts keep asking each other",
            hint="Look at 'relocctl list' on both hosts. The paused copy here is kept until the target answers.",
        )
        self.ended(OutcomeKind.UNKNOWN, Failure(error.code, str(error), error.hint))
        self.finish()

    def ended(self, kind: OutcomeKind, failure: Failure | None) -> dict[str, object]:
        """Fix the outcome and return it; ``finish`` hands it to those who wait."""
        now = time.monotonic()
        downtime, blackout, release = self._since_pause(self._resumed), self._since_pause(self._heard), None
        if self._resumed is not None:
            release = round(now - self._resumed, 3)
        outcome: dict[str, object] = {
            "outcome": kind.value,
            **self._facts,
            "rounds": self.rounds,
            "duration_s": round((self._resumed or now) - self._began, 3),
            "release_s": release,
            "downtime_ms": downtime,
            "blackout_ms": blackout,
            "channels": self._channels,
            "bytes_sent": self._counters.wire_bytes,
            "pages": self._counters.pages,
            "zero_pages": self._counters.zero_pages,
            **self._saved(),
            "dense_bytes": self._counters.dense_bytes,
            "level_bytes": dict(zip(map(str, LEVELS), self._counters.level_bytes, strict=True)),
            "error": failure.text if failure else None,
            "code": failure.code if failure else None,
            "reasons": [{"code": code, "text": text} for code, text in self._reasons],
            "hint": failure.hint if failure else "",
        }
        code = EXIT_CODES.get(failure.code, RelocdError.exit_code) if failure else 0
        self._ending = Ending(outcome, code)
        return outcome

    def _since_pause(self, moment: float | None) -> float | None:
        """Milliseconds from the pause to a moment."""
        if self._paused is None or moment is None:
            return None
        return round(max(0.0, moment - self._paused) * 1000, 1)

    def finish(self) -> None:
        """Give the outcome to everyone who waits."""
        assert self._ending is not None
        self._finished = True
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter.callback(self._ending)

    def round_facts(self, progress: Progress) -> dict[str, object]:
        """What the timeline says when a round begins."""
        return {
            "round": progress.round,
            "remaining_bytes": progress.remaining_bytes,
            "dirty_rate_bytes_s": progress.dirty_rate_bytes_s,
            "rate_bytes_s": self.snapshot()["rate_bytes_s"],
        }

    def sample(self) -> dict[str, object]:
        """Counters of this moment, for the timeline."""
        names = ("round", "remaining_bytes", "dirty_rate_bytes_s", "rate_bytes_s", "sent_bytes")
        snapshot = self.snapshot()
        return {"stream_bytes": self.stream_bytes} | {name: snapshot[name] for name in names} | self._saved()

    def _saved(self) -> dict[str, object]:
        """What did not have to travel, by cause."""
        return {
            "saved_zero_bytes": self._counters.saved_zero_bytes,
            "saved_compression_bytes": self._counters.saved_compression_bytes,
        }

    # -- what others ask -------------------------------------------------------------------------------------------

    def watch(self, watcher: Watcher) -> Callable[[], None]:
        """Have ``watcher`` called with each progress object; returns how to stop that."""
        self._watchers.append(watcher)
        return lambda: self._watchers.remove(watcher) if watcher in self._watchers else None

    def when_ended(self) -> Deferred[Ending]:
        """Fires with the ending, at once if it was given out already."""
        waiter: Deferred[Ending] = Deferred()
        if self._finished and self._ending is not None:
            waiter.callback(self._ending)
        else:
            self._waiters.append(waiter)
        return waiter

    def snapshot(self) -> dict[str, object]:
        """The progress object of docs/control.md."""
        verdict = self._verdict
        return {
            "event": "progress",
            "relocation": self._facts["relocation"],
            "phase": self.phase_name,
            "round": self.rounds,
            "total_bytes": self.last_progress.total_bytes,
            "remaining_bytes": self.last_progress.remaining_bytes,
            "sent_bytes": self._carried[-1].wire_bytes,
            "rate_bytes_s": self._rate(lambda carried: carried.wire_bytes),
            "dirty_rate_bytes_s": self.last_progress.dirty_rate_bytes_s,
            "elapsed_s": round(self.elapsed_s, 3),
            "percent": round(self._percent, 1),
            "limit_bytes_s": self._limit_bytes_s,
            "verdict": verdict.kind.value if verdict else None,
            "verdict_text": verdict.text if verdict else "",
            "downtime_limit_ms": verdict.downtime_limit_ms if verdict else None,
            "throttle_percent": verdict.throttle_percent if verdict else 0,
        }

    @property
    def stream_bytes(self) -> int:
        """How much of the hypervisor's stream was moved."""
        return self._counters.stream_bytes

    @property
    def elapsed_s(self) -> float:
        """Time since the relocation began."""
        return time.monotonic() - self._began

    @property
    def memory_rate_bytes_s(self) -> int:
        """How fast the guest's memory moves, before compression, over the last second or so."""
        return self._rate(lambda carried: carried.memory_bytes)

    def _rate(self, count: Callable[[_Carried], int]) -> int:
        first, last = self._carried[0], self._carried[-1]
        return round((count(last) - count(first)) / (last.at - first.at)) if last.at > first.at else 0

    def _publish(self) -> None:
        snapshot = self.snapshot()
        for watcher in list(self._watchers):
            watcher(snapshot)
