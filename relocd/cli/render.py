"""relocctl's output for people: tables, checks, host facts and sentences. Returns text; prints nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import click

from relocd.cli.client import JsonObject
from relocd.cli.commands import Preflight
from relocd.cli.failures import printable
from relocd.cli.replies import Check, Domain, Outcome

MIB = 1024 * 1024

VERDICT_COLOURS = {"pass": "green", "warn": "yellow", "fail": "red"}


def size_text(size_bytes: float) -> str:
    """Bytes in the largest unit that keeps the number at 1 or more: ``372.4 MiB``."""
    size = float(size_bytes)
    for unit in ("B", "KiB", "MiB"):
        if abs(size) < 1024:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"


def duration_text(seconds: float) -> str:
    """A duration as ``4.2 s`` below a minute, as ``H:MM:SS`` or ``M:SS`` from there."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def table(
    header: Sequence[str], rows: Iterable[Sequence[str]], *, right: frozenset[int] = frozenset()
) -> str:
    """Columns as wide as their widest cell, two spaces apart; those in ``right`` are set flush right."""
    cells = [tuple(header), *(tuple(printable(cell) for cell in row) for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    lines = (
        "  ".join(
            c.rjust(w) if i in right else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in cells
    )
    return "\n".join(line.rstrip() for line in lines)


def domains_table(domains: Iterable[Domain]) -> str:
    """``relocctl list``: one line a domain, by id."""
    return table(
        ("NAME", "ID", "STATE", "MEMORY MiB", "VCPUS", "CPU TIME s", "UUID"),
        (
            (d.name, str(d.id), d.state, str(d.memory_mib), str(d.vcpus), f"{d.cpu_time_s:.1f}", d.uuid)
            for d in sorted(domains, key=lambda d: d.id)
        ),
        right=frozenset({1, 3, 4, 5}),
    )


def preflight_text(preflight: Preflight, domain: str, host: str) -> str:
    """``relocctl check``: every check with its reason, the remedy below it, and the answer last."""
    width = max((len(check.name) for check in preflight.checks), default=0)
    lines = [line for check in preflight.checks for line in _check_lines(check, width)]
    failed = sum(check.verdict == "fail" for check in preflight.checks)
    if preflight.passed:
        lines.append(f"Domain '{domain}' can move to {host}.")
    else:
        lines.append(
            f"Domain '{domain}' cannot move to {host}: {failed} of {len(preflight.checks)} checks failed."
        )
    return "\n".join(lines)


def _check_lines(check: Check, width: int) -> Iterable[str]:
    verdict = click.style(printable(check.verdict), fg=VERDICT_COLOURS.get(check.verdict))
    yield f"{verdict}  {printable(check.name).ljust(width)}  {printable(check.text)}"
    if check.remedy and check.verdict != "pass":
        yield f"{' ' * (width + 8)}-> {printable(check.remedy)}"


_INFO_LABELS = {
    "version": "relocd version",
    "host": "host",
    "address": "relocation address",
    "port": "relocation port",
    "tls": "TLS",
    "tunnels": "tunnels",
    "driver": "driver",
    "driver_version": "hypervisor version",
    "accelerators": "accelerators",
    "memory_total_mib": "memory, MiB",
    "memory_free_mib": "memory free, MiB",
    "memory_reserved_mib": "memory reserved, MiB",
    "domains": "domains",
    "config_file": "configuration",
    "state_dir": "state directory",
    "run_dir": "run directory",
}


def info_text(info: JsonObject) -> str:
    """``relocctl info``: one fact a line, the known ones first."""
    keys = [key for key in _INFO_LABELS if key in info]
    keys += [key for key in info if key not in _INFO_LABELS and key != "event"]
    width = max(map(len, _INFO_LABELS.values()))
    return "\n".join(
        f"{printable(_INFO_LABELS.get(key, key)).ljust(width)}  {_fact(info[key])}".rstrip() for key in keys
    )


def _fact(value: object) -> str:
    if isinstance(value, list):
        return " ".join(_fact(item) for item in value)
    return "" if value is None else printable(str(value))


def saved_facts(outcome: JsonObject) -> list[str]:
    """What a relocation did not have to send, by cause: one sentence, or none if there was nothing."""
    zero, compression = (
        float(outcome.get(key) or 0) for key in ("saved_zero_bytes", "saved_compression_bytes")
    )
    parts = [f"{size_text(zero)} zero pages"] if zero > 0 else []
    parts += [f"{size_text(compression)} by compression"] if compression > 0 else []
    return [f"saved {size_text(zero + compression)} ({' and '.join(parts)})"] if parts else []


def summary(outcome: Outcome) -> str:
    """The last line of a relocation that was completed."""
    raw = outcome.raw
    facts = [
        "live" if raw["live"] else "offline",
        f"{raw['rounds']} rounds" if raw["rounds"] != 1 else "1 round",
        duration_text(float(raw["duration_s"] or 0)),
        *([f"downtime {raw['downtime_ms']:.0f} ms"] if raw["downtime_ms"] is not None else []),
        *([f"blackout about {raw['blackout_ms']:.0f} ms"] if raw["blackout_ms"] is not None else []),
        f"{size_text(float(raw['bytes_sent'] or 0))} sent",
        *saved_facts(raw),
        *([f"relocation {raw['relocation']}"] if raw["relocation"] else []),
    ]
    return printable(f"Domain '{raw['domain']}' is on {raw['host']} now: {', '.join(facts)}.")
