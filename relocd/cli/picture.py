"""One relocation as a picture: from its timeline, as ``relocctl history`` gets it, to a plot."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterable, Iterator, Sequence

from relocd.cli.client import JsonObject
from relocd.cli.plot import Band, Mark, Panel, Plot, Series
from relocd.cli.render import duration_text, size_text
from relocd.errors import UsageError


def picture(records: Sequence[JsonObject]) -> Plot:
    """The plot of the relocation among these records whose timeline has samples. Raises UsageError without one."""
    for record in records:
        if any(_of_kind(record, "sample")):
            return _plot(record)
    if not any("timeline" in record for record in records):
        raise UsageError(
            "A plot shows one relocation: give its id.", hint="'relocctl history' shows the ids, last column."
        )
    raise _nothing()


def _nothing() -> UsageError:
    return UsageError(
        "There is nothing to plot: the timeline of this relocation holds no samples with numbers.",
        hint="Only the source samples, twice a second while memory moves: ask there, or look at a longer one.",
    )


def _plot(record: JsonObject) -> Plot:
    samples = list(_of_kind(record, "sample"))

    def curve(name: str, key: str, colour: int, *, filled: bool = False) -> Series:
        points = ((_after(record, moment), _number(moment, key)) for moment in samples)
        # What the hypervisor has not counted yet, it calls 0.
        return Series(name, tuple(itertools.dropwhile(lambda point: not point[1], points)), colour, filled)

    rates = (
        curve("sent on the wire", "rate_bytes_s", 0),
        curve("dirtied by the guest", "dirty_rate_bytes_s", 1),
    )
    left = curve("memory left to send", "remaining_bytes", 2, filled=True)
    if not any(series.points for series in (*rates, left)):
        raise _nothing()
    return Plot(
        title=_title(record),
        subtitle=_subtitle(record),
        panels=(
            Panel("Rates", tuple(series for series in rates if series.points), "/s"),
            Panel("Remaining", (left,)),
        ),
        marks=tuple(_marks(record)),
        bands=tuple(_blackout(record)),
    )


def _title(record: JsonObject) -> str:
    outcome = _outcome(record)
    ending = str(outcome.get("outcome") or f"not ended ({record.get('mark')})")
    took = f" after {duration_text(_number(outcome, 'duration_s'))}" if outcome.get("duration_s") else ""
    way = "live" if record.get("live") else "offline"
    return f"{record.get('domain')} to {record.get('peer')}, {way}: {ending}{took}"


def _subtitle(record: JsonObject) -> str:
    outcome = _outcome(record)
    facts = [time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(_number(record, "began_s")))]
    if outcome.get("downtime_ms") is not None:
        facts.append(f"downtime {_number(outcome, 'downtime_ms'):.0f} ms")
    if outcome.get("rounds"):
        facts.append(f"{outcome['rounds']} round{'s' if outcome['rounds'] != 1 else ''}")
    if outcome.get("bytes_sent"):
        facts.append(f"{size_text(_number(outcome, 'bytes_sent'))} sent")
    expected = next(_of_kind(record, "prediction"), {}).get("live" if record.get("live") else "offline")
    if isinstance(expected, dict):
        facts.append(f"predicted: {duration_text(_number(expected, 'duration_s'))}")
    return " · ".join(facts)


def _marks(record: JsonObject) -> Iterable[Mark]:
    for moment in _of_kind(record, "round"):
        number = moment.get("round")
        yield Mark(_after(record, moment), f"round {number}" if number == 1 else f"{number}")
    for moment in _of_kind(record, "failure"):
        yield Mark(_after(record, moment), f"failure: {moment.get('code')}", bad=True)


def _blackout(record: JsonObject) -> Iterable[Band]:
    """From the pause of the domain (offline: before its memory moves) for as long as its downtime was."""
    phase = "switchover" if record.get("live") else "memory"
    paused = next((m for m in _of_kind(record, "phase") if m.get("phase") == phase), None)
    downtime_ms = _outcome(record).get("downtime_ms")
    if paused is None:
        return
    start_s = _after(record, paused)
    if isinstance(downtime_ms, int | float):
        yield Band(
            start_s,
            start_s + _number(_outcome(record), "downtime_ms") / 1000,
            f"downtime {downtime_ms:.0f} ms",
        )
    else:
        last_s = max(_after(record, moment) for moment in record.get("timeline") or ())
        yield Band(start_s, last_s, "domain paused")


def _of_kind(record: JsonObject, kind: str) -> Iterator[JsonObject]:
    return (moment for moment in record.get("timeline") or () if moment.get("kind") == kind)


def _after(record: JsonObject, moment: JsonObject) -> float:
    return max(0.0, _number(moment, "at_s") - _number(record, "began_s"))


def _outcome(record: JsonObject) -> JsonObject:
    return record.get("outcome") or {}


def _number(fields: JsonObject, key: str) -> float:
    value = fields.get(key)
    return max(0.0, float(value)) if isinstance(value, int | float) and math.isfinite(value) else 0.0
