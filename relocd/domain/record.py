"""Domain records: a :class:`~relocd.model.DomainConfig` as an S-expression, for the dialogue and the journal.

A record is complete and exact: ``from_sxp(to_sxp(config)) == config``. It comes from another host, so nothing in
it is taken on trust: every field is known and has its form, or the record is refused. A later version that adds
a field which an older one may safely overlook begins its name with ``x-``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias
from uuid import UUID

from attrs import frozen

from relocd.domain import rules
from relocd.model import Accelerator, Action, BootFile, Disk, DomainConfig, Vif
from relocd.nearest import suggestion
from relocd.sxp import Atom, Node, SList, Value, error_at

HEAD = "domain"
OPTIONAL_PREFIX = "x-"
_MAX_SIZE_BYTES = 1 << 40
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def to_sxp(config: DomainConfig) -> Value:
    """The record of a domain, ready for :func:`relocd.sxp.dumps`. Empty fields are left out."""
    fields: list[tuple[str, Value]] = [
        ("name", config.name),
        ("uuid", str(config.uuid)),
        ("memory_mib", config.memory_mib),
        ("vcpus", config.vcpus),
        ("hypervisor", config.hypervisor),
        ("architecture", config.architecture),
        ("machine", config.machine),
        ("cpu", config.cpu),
        ("accelerator", config.accelerator.value if config.accelerator else ""),
        ("root", config.root),
        ("extra", config.extra),
        ("on_poweroff", config.on_poweroff.value),
        ("on_reboot", config.on_reboot.value),
        ("on_crash", config.on_crash.value),
    ]
    return (
        HEAD,
        *(field for field in fields if field[1] != ""),
        *_boot_file("kernel", config.kernel),
        *_boot_file("ramdisk", config.ramdisk),
        *map(_disk, config.disks),
        *map(_vif, config.vifs),
    )


def _boot_file(field: str, file: BootFile | None) -> tuple[Value, ...]:
    if file is None:
        return ()
    digest = (("sha256", file.sha256),) if file.sha256 else ()
    return ((field, ("path", file.path), *digest, ("size_bytes", file.size_bytes)),)


def _disk(disk: Disk) -> Value:
    return (
        "disk",
        ("path", disk.path),
        ("vdev", disk.vdev),
        ("format", disk.format),
        ("readonly", disk.readonly),
    )


def _vif(vif: Vif) -> Value:
    return ("vif", ("mac", vif.mac), ("bridge", vif.bridge), ("model", vif.model), ("ip", *vif.ip))


def from_sxp(node: Node, *, source: str = "domain record") -> DomainConfig:
    """Read a record. Raises ConfigError, with the place in ``source``, for all that is not as it must be."""
    values, places = _read(node, HEAD, _DOMAIN, source)
    config = DomainConfig(**values)
    for problem in rules.problems(config):
        at = places.get(problem.field, [node])
        raise error_at(at[problem.index], problem.text, source=source, hint=problem.hint)
    return config


Reader: TypeAlias = Callable[[SList, str], object]
"""Makes a value from ``(field value ...)``; the text is the source, for errors."""


@frozen
class _Field:
    """How one field is read, and which attribute it becomes."""

    attribute: str
    read: Reader
    needed: bool = False
    many: bool = False


def _read(
    node: Node, what: str, fields: Mapping[str, _Field], source: str
) -> tuple[dict[str, Any], dict[str, list[Node]]]:
    """Read ``(head (field value ...) ...)`` by a table: attributes, and for each the nodes it came from."""
    if not isinstance(node, SList) or not node or node[0] != what:
        raise error_at(node, f"a list that begins with '{what}' is expected here", source=source)
    values: dict[str, Any] = {}
    places: dict[str, list[Node]] = {}
    for item in node[1:]:
        if not isinstance(item, SList) or not item or not isinstance(item[0], Atom):
            raise error_at(item, f"'{what}' holds (field value) lists only", source=source)
        if item[0].startswith(OPTIONAL_PREFIX):
            continue
        field = fields.get(item[0])
        if field is None:
            hint = suggestion(item[0], fields)
            raise error_at(item[0], f"'{what}' has no field {str(item[0])[:40]!r}", source=source, hint=hint)
        value, seen = field.read(item, source), places.setdefault(field.attribute, [])
        if seen and not field.many:
            raise error_at(item, f"the field '{item[0]}' appears twice", source=source)
        seen.append(item)
        values[field.attribute] = (*values.get(field.attribute, ()), value) if field.many else value
    for name, field in fields.items():
        if field.needed and field.attribute not in values:
            raise error_at(node, f"'{what}' lacks the field '{name}'", source=source)
    return values, places


def _word(item: SList, source: str) -> str:
    if len(item) != 2 or not isinstance(item[1], Atom):
        raise error_at(item, f"'{item[0]}' takes one text", source=source)
    return str(item[1])


def _words(item: SList, source: str) -> tuple[str, ...]:
    if not all(isinstance(word, Atom) for word in item):
        raise error_at(item, f"'{item[0]}' takes texts only", source=source)
    return tuple(map(str, item[1:]))


def _number(low: int, high: int) -> Reader:
    def read(item: SList, source: str) -> int:
        text = _word(item, source)
        if not (text.isascii() and text.isdigit() and len(text) < 19 and low <= int(text) <= high):
            message = f"'{item[0]}' must be a whole number from {low} to {high}, not {text[:40]!r}"
            raise error_at(item[1], message, source=source)
        return int(text)

    return read


def _choice(choices: Mapping[str, object]) -> Reader:
    def read(item: SList, source: str) -> object:
        text = _word(item, source)
        if text not in choices:
            message = f"'{item[0]}' must be one of {', '.join(choices)}, not {text[:40]!r}"
            raise error_at(item[1], message, source=source)
        return choices[text]

    return read


def _uuid(item: SList, source: str) -> UUID:
    text = _word(item, source)
    if not _UUID.fullmatch(text):
        raise error_at(item[1], f"{text[:40]!r} is not a UUID", source=source)
    return UUID(text)


def _part(make: Callable[..., object], fields: Mapping[str, _Field]) -> Reader:
    def read(item: SList, source: str) -> object:
        values, _ = _read(item, str(item[0]), fields, source)
        return make(**values)

    return read


_BOOT_FILE = _part(
    BootFile,
    {
        "path": _Field("path", _word, needed=True),
        "sha256": _Field("sha256", _word),
        "size_bytes": _Field("size_bytes", _number(0, _MAX_SIZE_BYTES)),
    },
)
_DISK = _part(
    Disk,
    {
        "path": _Field("path", _word, needed=True),
        "vdev": _Field("vdev", _word, needed=True),
        "format": _Field("format", _word),
        "readonly": _Field("readonly", _choice({"yes": True, "no": False})),
    },
)
_VIF = _part(
    Vif,
    {
        "mac": _Field("mac", _word, needed=True),
        "bridge": _Field("bridge", _word, needed=True),
        "model": _Field("model", _word),
        "ip": _Field("ip", _words),
    },
)
_ACTION = _choice({action.value: action for action in Action})
_DOMAIN = {
    "name": _Field("name", _word, needed=True),
    "uuid": _Field("uuid", _uuid, needed=True),
    "memory_mib": _Field("memory_mib", _number(1, rules.MAX_MEMORY_MIB), needed=True),
    "vcpus": _Field("vcpus", _number(1, rules.MAX_VCPUS)),
    "hypervisor": _Field("hypervisor", _word),
    "architecture": _Field("architecture", _word),
    "machine": _Field("machine", _word),
    "cpu": _Field("cpu", _word),
    "accelerator": _Field("accelerator", _choice({each.value: each for each in Accelerator})),
    "kernel": _Field("kernel", _BOOT_FILE),
    "ramdisk": _Field("ramdisk", _BOOT_FILE),
    "root": _Field("root", _word),
    "extra": _Field("extra", _word),
    "disk": _Field("disks", _DISK, many=True),
    "vif": _Field("vifs", _VIF, many=True),
    "on_poweroff": _Field("on_poweroff", _ACTION),
    "on_reboot": _Field("on_reboot", _ACTION),
    "on_crash": _Field("on_crash", _ACTION),
}
