"""What one relocation may take: the configuration's limits, or less if a command asks for it."""

from __future__ import annotations

from attrs import frozen

from relocd.config import Config
from relocd.config.model import MIB
from relocd.errors import UsageError

DOWNTIME_MAX_MS = 60_000
DURATION_MAX_S = 604_800.0
BANDWIDTH_MIN_BYTES_S = 64 << 10
"""Less would hardly carry the dialogue's own pace, and is as a rule a rate whose unit was forgotten."""
BANDWIDTH_MAX_BYTES_S = 1 << 40

NO_LIMIT = 0


@frozen
class Wishes:
    """What a command asks for; None where it says nothing. 0 is no limit, but for the pause."""

    max_bandwidth_bytes_s: int | None = None
    max_downtime_ms: int | None = None
    max_duration_s: float | None = None


@frozen
class Terms:
    """What holds for one relocation. ``downtime_ms`` is the pause it begins to aim for, ``max_downtime_ms`` how far
    that may be raised, ``allowed_downtime_ms`` what this host would allow at most. 0 elsewhere is no limit."""

    max_bandwidth_bytes_s: int = NO_LIMIT
    downtime_ms: int = 20
    max_downtime_ms: int = 300
    allowed_downtime_ms: int = 300
    max_duration_s: float = NO_LIMIT
    max_rounds: int = NO_LIMIT
    throttle: bool = False


def agree(config: Config, wishes: Wishes) -> Terms:
    """The terms of a relocation. Raises UsageError for a wish that cannot be or that this host does not allow."""
    downtime_ms = _downtime(config.max_downtime_ms, wishes.max_downtime_ms)
    return Terms(
        max_bandwidth_bytes_s=_bandwidth(config.max_bandwidth_bytes_s, wishes.max_bandwidth_bytes_s),
        downtime_ms=min(config.downtime_ms, downtime_ms),
        max_downtime_ms=downtime_ms,
        allowed_downtime_ms=config.max_downtime_ms,
        max_duration_s=_duration(config.max_duration_s, wishes.max_duration_s),
        max_rounds=config.max_rounds,
        throttle=config.throttle,
    )


def _downtime(allowed_ms: int, wish_ms: int | None) -> int:
    if wish_ms is None:
        return allowed_ms
    if not 1 <= wish_ms <= DOWNTIME_MAX_MS:
        raise UsageError(f"The longest pause must be from 1 to {DOWNTIME_MAX_MS} ms, not {wish_ms}.")
    if wish_ms > allowed_ms:
        raise _beyond("a pause", f"{wish_ms} ms", f"{allowed_ms} ms", "xen-relocation-max-downtime")
    return wish_ms


def _bandwidth(allowed: int, wish: int | None) -> int:
    if wish is None:
        return allowed
    if wish != NO_LIMIT and not BANDWIDTH_MIN_BYTES_S <= wish <= BANDWIDTH_MAX_BYTES_S:
        raise UsageError(
            f"The bandwidth must be 0 or from {BANDWIDTH_MIN_BYTES_S} to {BANDWIDTH_MAX_BYTES_S} bytes per second, "
            f"not {wish}.",
            hint="Say 50M for 50 MiB per second; 0 is no limit.",
        )
    if allowed and (wish == NO_LIMIT or wish > allowed):
        asked = "no limit" if wish == NO_LIMIT else f"{wish / MIB:.4g} MiB/s"
        raise _beyond("a bandwidth", asked, f"{allowed / MIB:.4g} MiB/s", "xen-relocation-max-bandwidth")
    return wish


def _duration(allowed_s: float, wish_s: float | None) -> float:
    if wish_s is None:
        return allowed_s
    if not 0 <= wish_s <= DURATION_MAX_S:
        raise UsageError(f"The timeout must be from 0 (none) to {DURATION_MAX_S:g} seconds, not {wish_s:g}.")
    if allowed_s and (wish_s == NO_LIMIT or wish_s > allowed_s):
        asked = "no limit" if wish_s == NO_LIMIT else f"{wish_s:g} s"
        raise _beyond("a duration", asked, f"{allowed_s:g} s", "xen-relocation-max-duration")
    return wish_s


def _beyond(what: str, asked: str, allowed: str, key: str) -> UsageError:
    return UsageError(
        f"This host allows a relocation {what} of at most {allowed}, and {asked} was asked for.",
        hint=f"Ask for less, or raise {key} in the configuration.",
    )
