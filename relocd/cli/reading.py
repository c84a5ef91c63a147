"""What progress objects say, in words and numbers for people."""

from __future__ import annotations

import math

from attrs import define

from relocd.cli.client import JsonObject
from relocd.cli.failures import printable
from relocd.cli.render import duration_text, size_text

PHASES = {
    "queue": "waiting for others",
    "connect": "connecting",
    "preflight": "checking",
    "files": "boot files",
    "memory": "memory",
    "switchover": "switchover",
    "commit": "hand-over",
    "resume": "resuming",
}


@define
class Reading:
    """Numbers out of progress objects, of which any may be missing. ``percent`` never runs backwards."""

    percent: float = 0.0
    step: str = ""
    numbers: str = ""
    eta: str = ""
    _verdict: tuple[object, ...] = ()

    def take_news(self, event: JsonObject) -> str:
        """The verdict on the rounds, if it is another one than before and says that something is done."""
        verdict = tuple(event.get(key) for key in ("verdict", "downtime_limit_ms", "throttle_percent"))
        before, self._verdict = self._verdict, verdict
        quiet = verdict == before or verdict[0] in (None, "continue")
        return "" if quiet else printable(str(event.get("verdict_text") or ""))

    def take(self, event: JsonObject) -> None:
        self.percent = max(self.percent, min(100.0, _number(event, "percent")))
        phase = str(event.get("phase") or "")
        self.step = printable(PHASES.get(phase, phase))
        if phase == "memory" and event.get("round"):
            self.step += f", round {int(_number(event, 'round'))}"
        rate, remaining = _number(event, "rate_bytes_s"), _number(event, "remaining_bytes")
        texts = [f"{size_text(rate)}/s"] if rate else []
        texts += [f"{size_text(remaining)} left"] if remaining else []
        self.numbers = ", ".join(texts)
        self.eta = self._eta(_number(event, "elapsed_s"))

    def _eta(self, elapsed_s: float) -> str:
        """Elapsed time continued in proportion; nothing while that would be a mere guess."""
        if not 2.0 <= self.percent < 100.0 or elapsed_s <= 0:
            return ""
        return f"ETA {duration_text(elapsed_s * (100.0 - self.percent) / self.percent)}"


def _number(event: JsonObject, key: str) -> float:
    value = event.get(key)
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else 0.0
