"""The verdicts of a preflight as fields of a message, and back."""

from __future__ import annotations

from relocd.errors import ProtocolError
from relocd.preflight.result import Check, Verdict
from relocd.wire.fields import Fields

MAX_CHECKS = 64


def check_rows(checks: tuple[Check, ...]) -> tuple[tuple[str, ...], ...]:
    """The values of the field ``checks``."""
    return tuple((check.name, check.verdict.value, check.text, check.remedy) for check in checks)


def read_checks(fields: Fields) -> tuple[Check, ...]:
    """The opposite of check_rows. Raises ProtocolError."""
    rows = fields.records("checks", 4, MAX_CHECKS)
    return tuple(Check(name, _verdict(word), text, remedy) for name, word, text, remedy in rows)


def _verdict(word: str) -> Verdict:
    try:
        return Verdict(word)
    except ValueError:
        raise ProtocolError(f"'{word}' is no verdict") from None
