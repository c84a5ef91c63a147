"""relocctl's output about predictions: before a relocation, and beside what came of it."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable

from relocd.cli.client import JsonObject
from relocd.cli.render import duration_text, size_text, table

_WIDTH = 100


def prediction_text(reply: JsonObject) -> str:
    """What ``relocctl check --measure`` predicts, or why it does not; empty if nothing was measured."""
    prediction = reply.get("prediction")
    if isinstance(prediction, dict):
        sentences = prediction.get("sentences")
        lines = [str(sentence) for sentence in sentences] if isinstance(sentences, list) else []
    else:
        lines = [f"No prediction. {reply['no_prediction']}"] if reply.get("no_prediction") else []
    return "\n".join(printable_lines(lines))


def printable_lines(lines: Iterable[str]) -> Iterable[str]:
    """Wrapped, and without what could steer a terminal."""
    for line in lines:
        yield from textwrap.wrap("".join(char if char.isprintable() else "?" for char in line), _WIDTH)


def compared(record: JsonObject) -> list[str]:
    """The prediction of a relocation beside its outcome, if there was one."""
    moments = record.get("timeline") or []
    prediction = next((moment for moment in moments if moment.get("kind") == "prediction"), None)
    if prediction is None:
        return []
    expected = prediction.get("live" if record.get("live") else "offline")
    outcome = record.get("outcome") or {}
    came = (
        outcome.get("duration_s"),
        outcome.get("downtime_ms"),
        outcome.get("bytes_sent"),
        outcome.get("rounds"),
    )
    rows = [("came out", *_cells(*came))]
    if isinstance(expected, dict):
        keys = ("duration_s", "downtime_ms", "wire_bytes", "rounds")
        rows.insert(0, ("predicted", *_cells(*map(expected.get, keys))))
    else:
        rows.insert(0, ("predicted", "no end", "", "", ""))
    header = ("", "TIME", "DOWNTIME", "SENT", "ROUNDS")
    return table(header, rows, right=frozenset({1, 2, 3, 4})).splitlines()


def _cells(duration_s: object, downtime_ms: object, sent_bytes: object, rounds: object) -> tuple[str, ...]:
    return (
        duration_text(float(duration_s)) if isinstance(duration_s, int | float) else "",
        f"{downtime_ms:.0f} ms" if isinstance(downtime_ms, int | float) else "",
        size_text(float(sent_bytes)) if isinstance(sent_bytes, int | float) else "",
        str(rounds or ""),
    )
