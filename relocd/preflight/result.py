"""What a check says."""

from __future__ import annotations

import enum

from attrs import frozen


class Verdict(enum.StrEnum):
    """Outcome of one check. A warning does not stop a relocation, a failure does."""

    PASS = "pass"
    WARN = "warn"
    FAIL = "fail"


@frozen
class Check:
    """One named check: its verdict, the reason with its numbers, and what to do (empty when it passed)."""

    name: str
    verdict: Verdict
    text: str
    remedy: str = ""


def failures(checks: tuple[Check, ...]) -> tuple[Check, ...]:
    """Those that stop a relocation."""
    return tuple(check for check in checks if check.verdict is Verdict.FAIL)
