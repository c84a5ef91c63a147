"""What a source says of itself when it proposes a domain, as fields of the message, and back.

All of it is optional: a host that does not say something is not compared in that.
"""

from __future__ import annotations

import re

from relocd.domain.rules import MAX_VIFS
from relocd.errors import ProtocolError
from relocd.preflight.facts import DiskFact, DiskKind, SourceFacts
from relocd.sxp import Value
from relocd.wire.fields import Fields, to_number

MAX_WORDS = 256
MAX_DISKS = 64
MAX_SIZE_BYTES = (1 << 63) - 1
MAX_CLOCK_MS = 1 << 53
_WORD_BITS = 32

_WORD = re.compile(r"[0-9a-f]{1,8}\.[0-9a-f]{1,8}\.e[abcd]x")
_SAMPLES = re.compile(r"([0-9a-f]{16}|0)?(,([0-9a-f]{16}|0)){0,63}")
_LOCKED = {True: "yes", False: "no", None: "unknown"}
_UNLOCKED = {word: locked for locked, word in _LOCKED.items()}


def source_fields(facts: SourceFacts) -> tuple[tuple[Value, ...], ...]:
    """Fields for what is known."""
    fields: list[tuple[Value, ...]] = []
    if facts.hypervisor_version:
        fields.append(("hypervisor-version", facts.hypervisor_version))
    if facts.clock_s:
        fields.append(("clock-ms", round(facts.clock_s * 1000)))
    if facts.cpu:
        fields.append(("cpu-words", *((word, str(bits)) for word, bits in sorted(facts.cpu.items()))))
    if facts.disks:
        fields.append(("disks", *(_disk_row(fact) for _, fact in sorted(facts.disks.items()))))
    if facts.heard:
        fields.append(("probes-heard", *sorted(facts.heard)))
    if facts.tunnel_trouble:
        fields.append(("tunnel-trouble", facts.tunnel_trouble))
    return tuple(fields)


def read_source(fields: Fields) -> SourceFacts:
    """The opposite of source_fields. Raises ProtocolError."""
    disks = [_read_disk(row) for row in fields.records("disks", 5, MAX_DISKS)]
    return SourceFacts(
        hypervisor_version=fields.text("hypervisor-version", ""),
        clock_s=fields.number("clock-ms", 0, MAX_CLOCK_MS, 0) / 1000,
        cpu=dict(_read_word(*row) for row in fields.records("cpu-words", 2, MAX_WORDS)),
        disks={disk.path: disk for disk in disks},
        heard=frozenset(fields.texts("probes-heard", MAX_VIFS)),
        tunnel_trouble=fields.text("tunnel-trouble", ""),
    )


def _read_word(name: str, bits: str) -> tuple[str, int]:
    if not _WORD.fullmatch(name):
        raise ProtocolError(f"'{name}' is no register of CPUID")
    return name, to_number(bits, 0, (1 << _WORD_BITS) - 1, f"'{name}'")


def _disk_row(fact: DiskFact) -> tuple[str, ...]:
    samples = ",".join(sample or "0" for sample in fact.samples)
    return (fact.path, fact.kind.value, str(fact.size_bytes), _LOCKED[fact.locked], samples)


def _read_disk(row: tuple[str, ...]) -> DiskFact:
    path, kind, size, locked, samples = row
    if kind not in set(DiskKind) or locked not in _UNLOCKED or not _SAMPLES.fullmatch(samples):
        raise ProtocolError(f"what is said of disk '{path}' cannot be understood")
    return DiskFact(
        path,
        exists=True,
        readable=True,
        size_bytes=to_number(size, -1, MAX_SIZE_BYTES, f"the size of '{path}'"),
        kind=DiskKind(kind),
        locked=_UNLOCKED[locked],
        samples=tuple("" if sample == "0" else sample for sample in samples.split(",")) if samples else (),
    )
