"""relocctl's output about relocations, under way and past: tables, timelines, and what a decision means."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Callable, Iterable, Sequence

from relocd.cli.client import JsonObject
from relocd.cli.forecast import compared
from relocd.cli.render import duration_text, saved_facts, size_text, table

_WIDTH = 100


def status_text(relocations: Sequence[JsonObject]) -> str:
    """``relocctl status``: one line a relocation under way; below it, of each that waits, what either side knows."""
    lines: list[str] = []
    for row in relocations:
        if row.get("waiting") and not row.get("connected"):
            reference = row.get("relocation") or row.get("domain")
            lines += [
                "",
                f"{row.get('relocation') or 'no relocation'}, domain '{row.get('domain')}':",
                f"  here:  {row.get('here')}",
                f"  there: {row.get('there')}",
                f"  If that host is gone for good: relocctl resolve {reference} --resume-here | --discard",
            ]
        elif row.get("verdict_text"):
            lines += ["", f"{row.get('relocation')}: {row.get('verdict')}: {row.get('verdict_text')}"]
        elif row.get("trouble"):
            lines += ["", f"{row.get('relocation')}: the domain does not resume yet: {row.get('trouble')}"]
    return "\n".join([status_table(relocations), *map(_clean, lines)])


def _clean(line: str) -> str:
    """Without what could steer a terminal, some of it was written by a peer; spaces stay as they are."""
    return "".join(char if char.isprintable() else "?" for char in line)


def status_table(relocations: Iterable[JsonObject]) -> str:
    """One line a relocation under way."""
    header = ("RELOCATION", "ROLE", "DOMAIN", "PEER", "STATE", "PEER IS")
    keys = ("relocation", "role", "domain", "peer")
    rows = ((*(str(row.get(key) or "-") for key in keys), *_where(row)) for row in relocations)
    return table(header, rows)


def _where(row: JsonObject) -> tuple[str, str]:
    """How far a relocation is, and whether its peer is there."""
    if row.get("phase") == "queue":
        return "queued", "not asked yet"
    known = "being asked" if row.get("relocation") else "unknown"
    return str(row.get("state") or "-"), "connected" if row.get("connected") else known


def history_table(relocations: Iterable[JsonObject]) -> str:
    """``relocctl history``: one line a relocation of the past."""
    header = ("BEGAN", "ROLE", "DOMAIN", "PEER", "OUTCOME", "TIME", "DOWNTIME", "SENT", "RELOCATION")
    return table(header, (_history_row(row) for row in relocations), right=frozenset({5, 6, 7}))


def _history_row(record: JsonObject) -> tuple[str, ...]:
    outcome = record.get("outcome") or {}
    duration, downtime, sent = (outcome.get(key) for key in ("duration_s", "downtime_ms", "bytes_sent"))
    return (
        _clock(record.get("began_s")),
        *(str(record.get(key, "")) for key in ("role", "domain", "peer")),
        str(outcome.get("outcome") or record.get("mark", "")),
        "" if duration is None else duration_text(duration),
        "" if downtime is None else f"{downtime:.0f} ms",
        "" if not sent else size_text(sent),
        str(record.get("relocation", "")),
    )


def _clock(at_s: object) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(float(str(at_s or 0))))


def history_text(record: JsonObject) -> str:
    """``relocctl history ID``: one relocation with its timeline; times are seconds since it began."""
    outcome = record.get("outcome") or {}
    way = "live" if record.get("live") else "offline"
    direction = "to" if record.get("role") == "source" else "from"
    whole = f"domain '{record.get('domain')}' {direction} {record.get('peer')}, {way}"
    lines = [
        f"Relocation {record.get('relocation')}: {whole}",
        f"Began {_clock(record.get('began_s'))}; {_ending(record, outcome)}",
    ]
    if outcome.get("error"):
        lines += textwrap.wrap(f"Because {outcome['error']}", _WIDTH)
    began_s = float(str(record.get("began_s") or 0))
    lines += [*_levels(outcome), *compared(record), ""]
    for moment in record.get("timeline") or ():
        lines += _moment_lines(moment, began_s)
    return "\n".join(map(_clean, lines))


def _ending(record: JsonObject, outcome: JsonObject) -> str:
    facts = [str(outcome.get("outcome") or f"not ended: {record.get('mark')}")]
    if outcome.get("duration_s") is not None:
        facts.append(f"{duration_text(float(outcome['duration_s']))} in all")
    if outcome.get("downtime_ms") is not None:
        facts.append(f"downtime {outcome['downtime_ms']:.0f} ms")
    if outcome.get("blackout_ms") is not None:
        facts.append(f"blackout about {outcome['blackout_ms']:.0f} ms")
    if outcome.get("rounds"):
        facts.append(f"rounds: {outcome['rounds']}")
    if outcome.get("bytes_sent"):
        facts.append(f"{size_text(outcome['bytes_sent'])} sent")
    return ", ".join([*facts, *saved_facts(outcome)])


def _levels(outcome: JsonObject) -> list[str]:
    """What was sent at which level of compression, before it; a journal of an older relocd does not know."""
    by_level = {str(level): float(size) for level, size in (outcome.get("level_bytes") or {}).items() if size}
    plain = by_level.pop("0", 0.0)
    parts = [f"{size_text(size)} with zstd {level}" for level, size in by_level.items()]
    if plain:
        dense = float(outcome.get("dense_bytes") or 0)
        why = f" ({size_text(dense)} because it did not shrink)" if dense else ""
        parts.append(f"{size_text(plain)} as it is{why}")
    if channels := outcome.get("channels"):
        parts.append(f"by {channels} channels of the hypervisor")
    return [f"Contents: {', '.join(parts)}"] if parts else []


def _moment_lines(moment: JsonObject, began_s: float) -> Iterable[str]:
    tell = _MOMENTS.get(str(moment.get("kind")))
    if tell is None:
        return
    first, *others = tell(moment)
    after_s = max(0.0, float(moment.get("at_s") or 0) - began_s)
    yield f"{after_s:+10.3f}  {first}"
    for line in others:
        yield f"{'':12}{line}"


def _checks(moment: JsonObject) -> list[str]:
    checks = moment.get("checks") or []
    counts = [f"{sum(c.get('verdict') == word for c in checks)} {word}" for word in ("pass", "warn", "fail")]
    notable = [c for c in checks if c.get("verdict") != "pass"]
    return [f"checks: {', '.join(counts)}"] + [
        f"{c.get('verdict')}  {c.get('check')}: {c.get('text')}" for c in notable
    ]


def _prediction(moment: JsonObject) -> list[str]:
    sentences = moment.get("sentences") or []
    wrapped = [line for text in sentences for line in textwrap.wrap(str(text), _WIDTH)]
    return [f"prediction: {moment.get('verdict')}", *wrapped]


def _round(moment: JsonObject) -> list[str]:
    left, dirty, rate = (
        size_text(float(moment.get(key) or 0))
        for key in ("remaining_bytes", "dirty_rate_bytes_s", "rate_bytes_s")
    )
    return [f"round {moment.get('round')}: {left} left, {dirty}/s dirtied, {rate}/s sent"]


def _peer(moment: JsonObject) -> list[str]:
    says = moment.get("says")
    return [f"the peer, asked, says: {says}" if says else f"the peer does not answer: {moment.get('text')}"]


#: How each kind of moment is told. Samples are for programs and plots.
_MOMENTS: dict[str, Callable[[JsonObject], list[str]]] = {
    "state": lambda m: [f"state: {m.get('state')}"],
    "phase": lambda m: [f"{m.get('phase')}"],
    "round": _round,
    "checks": _checks,
    "prediction": _prediction,
    "verdict": lambda m: [f"verdict: {m.get('verdict')}", str(m.get("text"))],
    "peer": _peer,
    "operator": lambda m: [f"an operator decides: {m.get('does')}"],
    "failure": lambda m: [f"failure ({m.get('code')}): {m.get('text')}"],
}


def advice_text(advice: JsonObject) -> str:
    """What an operator is told before ``relocctl resolve`` decides: what is known, what is risked."""
    known = [line for fact in advice.get("known") or () for line in textwrap.wrap(str(fact), _WIDTH)]
    risk = textwrap.wrap(f"RISK: {advice.get('risk')}", _WIDTH)
    return "\n".join(map(_clean, [*known, "", *risk]))
