"""Domain files: what an administrator writes to describe a domain, and what it amounts to.

Two notations are understood: the ``key = value`` files of xm and xl (:mod:`relocd.domain.syntax`), and the
S-expression of a domain record (:mod:`relocd.domain.record`), which may lack what relocd can choose by itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from uuid import UUID

from attrs import evolve, frozen

from relocd.domain import record, rules
from relocd.domain.devices import DEFAULT_BRIDGE
from relocd.domain.keys import Interpreter, Place
from relocd.domain.syntax import MAX_CHARACTERS, Setting, read_settings, read_value
from relocd.errors import ConfigError
from relocd.model import DomainConfig
from relocd.sxp import Atom, Limits, Node, SList, error_at, parse_one

_LIMITS = Limits(size_bytes=MAX_CHARACTERS)
_BEGINS_A_LIST = re.compile(r"(?:\s|#[^\n]*\n)*+\(")


@frozen
class Parsed:
    """A domain, and a sentence with its place for everything in the file that deserves a second look."""

    config: DomainConfig
    warnings: tuple[str, ...]


def parse_domain_file(
    text: str,
    *,
    source: str,
    overrides: Mapping[str, str],
    new_uuid: Callable[[], UUID],
    new_mac: Callable[[], str],
) -> Parsed:
    """Read a domain file; ``source`` is its name for messages.

    ``overrides`` are settings that win over the file, each value as it stands behind ``key=`` on a command line.
    ``new_uuid`` and ``new_mac`` give what the file leaves out; a MAC address must be nobody else's (see
    :func:`relocd.domain.devices.xen_mac`). Raises ConfigError, with its place, for what cannot be.
    """
    reading = Interpreter(new_mac)
    base: DomainConfig | None = None
    if _BEGINS_A_LIST.match(text):
        node = _complete(parse_one(text, source=source, limits=_LIMITS), new_uuid, new_mac, source)
        base = record.from_sxp(node, source=source)
    else:
        for setting in read_settings(text, source=source):
            reading.take(setting, source)
    for key, value in overrides.items():
        origin = f"{key}={value}"[:60]
        reading.take(Setting(key, read_value(value, source=origin), 0, 0), origin)
    config = evolve(base, **reading.fields) if base else _new(reading, source, new_uuid)
    reading.compare_ceilings({"memory_mib": config.memory_mib, "vcpus": config.vcpus})
    _check(config, reading, source)
    return Parsed(config, tuple(reading.warnings))


def _new(reading: Interpreter, source: str, new_uuid: Callable[[], UUID]) -> DomainConfig:
    for key, field in {"name": "name", "memory": "memory_mib"}.items():
        if field not in reading.fields:
            raise ConfigError(f"the domain has no {key}", source=source, hint=f"Add a line: {key} = ...")
    return DomainConfig(**{"uuid": new_uuid(), **reading.fields})


def _check(config: DomainConfig, reading: Interpreter, source: str) -> None:
    for problem in rules.problems(config):
        places = reading.places.get(problem.field) or [Place(source)]
        raise places[problem.index if problem.index < len(places) else 0].error(problem.text, problem.hint)
    if not (config.kernel or config.disks):
        reading.warn(Place(source), "the domain has neither a kernel nor a disk to boot from")


def _complete(node: Node, new_uuid: Callable[[], UUID], new_mac: Callable[[], str], source: str) -> Node:
    """Give a record what an administrator may leave out of it: the UUID, and MAC address and bridge of a vif."""
    if not isinstance(node, SList) or not node:
        return node
    if node[0] == "vm":
        raise error_at(
            node, "xm's own (vm ...) is not understood", source=source, hint="Write key = value lines."
        )
    items = [
        _with(_with(item, "mac", new_mac), "bridge", lambda: DEFAULT_BRIDGE) if _head(item) == "vif" else item
        for item in node
    ]
    return _with(SList(items, node.line, node.column), "uuid", lambda: str(new_uuid()))


def _with(node: Node, field: str, value: Callable[[], str]) -> Node:
    """``node``, which holds ``(field value)`` lists, with this one too."""
    if not isinstance(node, SList) or any(_head(item) == field for item in node):
        return node
    place = (node.line, node.column)
    return SList([*node, SList([Atom(field, *place), Atom(value(), *place)], *place)], *place)


def _head(node: Node) -> str:
    return str(node[0]) if isinstance(node, SList) and node and isinstance(node[0], Atom) else ""
