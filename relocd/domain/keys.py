"""The keys of domain files: what each may hold, and which field of DomainConfig it becomes."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias
from uuid import UUID

from attrs import frozen

from relocd.domain import rules
from relocd.domain.devices import read_disk, read_vif
from relocd.domain.foreign import WITHOUT_MEANING
from relocd.domain.syntax import Item, Setting
from relocd.errors import ConfigError
from relocd.model import Action, BootFile
from relocd.nearest import suggestion


@frozen
class Place:
    """Where something was read; line and column are 0 on a command line."""

    source: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return ":".join([self.source, *(str(n) for n in (self.line, self.column) if n)])

    def error(self, text: str, hint: str = "") -> ConfigError:
        """A ConfigError that points here."""
        return ConfigError(text, source=self.source, line=self.line, column=self.column, hint=hint)


class Interpreter:
    """Turns settings into fields of DomainConfig, and remembers where each came from."""

    def __init__(self, new_mac: Callable[[], str]) -> None:
        self.new_mac = new_mac
        self.fields: dict[str, Any] = {}
        self.places: dict[str, list[Place]] = {}
        self.ceilings: dict[str, tuple[int, Place]] = {}
        self.warnings: list[str] = []
        self._set_at: dict[str, Place] = {}

    def take(self, setting: Setting, source: str) -> None:
        """Read one setting. What ``source`` sets twice is reported, and the last one counts, as in xm and xl."""
        place = Place(source, setting.line, setting.column)
        key = KEYS.get(setting.key)
        if key is None:
            self._overlook(setting.key, place)
            return
        before = self._set_at.get(key.field)
        if before and before.source == source:
            self.warn(place, f"'{setting.key}' is set in line {before.line} already; this one counts")
        self._set_at[key.field] = place
        key.read(self, key.field, Value(setting.key, setting.item, source))

    def put(self, field: str, value: object, *places: Place) -> None:
        """Set a field of DomainConfig."""
        self.fields[field] = value
        self.places[field] = list(places)

    def warn(self, place: Place, text: str) -> None:
        """Report something that deserves a second look."""
        self.warnings.append(f"{place}: {text}")

    def compare_ceilings(self, fields: Mapping[str, Any]) -> None:
        """Report a maxmem or maxvcpus that differs from what the domain is started with."""
        for field, (ceiling, place) in self.ceilings.items():
            if fields[field] != ceiling:
                self.warn(
                    place, "this is overlooked: a domain keeps the memory and processors it starts with"
                )

    def _overlook(self, key: str, place: Place) -> None:
        if key in WITHOUT_MEANING:
            self.warn(place, f"'{key}' has no meaning here. {WITHOUT_MEANING[key]}".rstrip())
        else:
            hint = suggestion(key, [*KEYS, *WITHOUT_MEANING])
            self.warn(place, f"there is no key '{key[:40]}', and it was overlooked. {hint}".rstrip())


@frozen
class Value:
    """The value of a key, with what is needed to complain about it."""

    key: str
    item: Item
    source: str

    @property
    def place(self) -> Place:
        """Where the value begins."""
        return Place(self.source, self.item.line, self.item.column)

    def text(self) -> str:
        """A string; a whole number will do."""
        if not isinstance(self.item.value, str | int):
            raise self.place.error(f"'{self.key}' must be a string", "Put it in quotes.")
        return str(self.item.value)

    def whole(self, low: int, high: int) -> int:
        """A whole number, in quotes or not."""
        text = self.text().strip()
        if not re.fullmatch("[0-9]{1,18}|0[xX][0-9a-fA-F]{1,15}", text) or not low <= _int(text) <= high:
            raise self.place.error(
                f"'{self.key}' must be a whole number from {low} to {high}, not {text[:40]!r}"
            )
        return _int(text)

    def parts(self) -> list[Value]:
        """The values of a list; a single value will do."""
        items = self.item.value if isinstance(self.item.value, tuple) else (self.item,)
        return [Value(self.key, item, self.source) for item in items]


def _int(text: str) -> int:
    return int(text, 16) if text[:2].lower() == "0x" else int(text)


Reader: TypeAlias = Callable[[Interpreter, str, Value], None]


@frozen
class Key:
    """One key: the field it sets, and how it is read. Keys of one field are other names for the same."""

    field: str
    read: Reader


def _text(make: Callable[[str], object] = str) -> Reader:
    def read(into: Interpreter, field: str, value: Value) -> None:
        into.put(field, make(value.text()), value.place)

    return read


def _whole(high: int) -> Reader:
    def read(into: Interpreter, field: str, value: Value) -> None:
        into.put(field, value.whole(1, high), value.place)

    return read


def _ceiling_of(field: str, high: int) -> Reader:
    def read(into: Interpreter, _: str, value: Value) -> None:
        into.ceilings[field] = value.whole(1, high), value.place

    return read


def _uuid(into: Interpreter, field: str, value: Value) -> None:
    try:
        uuid = UUID(value.text())
    except ValueError:
        raise value.place.error(
            f"{value.text()[:40]!r} is not a UUID", "Leave it out to get a new one."
        ) from None
    into.put(field, uuid, value.place)


def _cpu(into: Interpreter, field: str, value: Value) -> None:
    if re.fullmatch("-?[0-9]+", value.text()):
        into.warn(value.place, "the number of a processor has no meaning here; 'cpu' names a model")
    else:
        into.put(field, value.text(), value.place)


def _action(into: Interpreter, field: str, value: Value) -> None:
    try:
        action = Action(value.text())
    except ValueError:
        known = ", ".join(Action)
        raise value.place.error(
            f"'{value.key}' cannot be {value.text()[:40]!r}", f"Use one of {known}."
        ) from None
    into.put(field, action, value.place)


def _disks(into: Interpreter, field: str, value: Value) -> None:
    _devices(
        into, field, value, lambda part: read_disk(part.text(), lambda text: into.warn(part.place, text))
    )


def _vifs(into: Interpreter, field: str, value: Value) -> None:
    def read(part: Value) -> object:
        return read_vif(part.text(), lambda text: into.warn(part.place, text), into.new_mac)

    _devices(into, field, value, read)


def _devices(into: Interpreter, field: str, value: Value, read: Callable[[Value], object]) -> None:
    devices = []
    for part in value.parts():
        try:
            devices.append(read(part))
        except ValueError as error:
            raise part.place.error(str(error)) from None
    into.put(field, tuple(devices), *(part.place for part in value.parts()))


KEYS: dict[str, Key] = {
    "name": Key("name", _text()),
    "uuid": Key("uuid", _uuid),
    "memory": Key("memory_mib", _whole(rules.MAX_MEMORY_MIB)),
    "maxmem": Key("maxmem", _ceiling_of("memory_mib", rules.MAX_MEMORY_MIB)),
    "vcpus": Key("vcpus", _whole(rules.MAX_VCPUS)),
    "maxvcpus": Key("maxvcpus", _ceiling_of("vcpus", rules.MAX_VCPUS)),
    "kernel": Key("kernel", _text(BootFile)),
    "ramdisk": Key("ramdisk", _text(BootFile)),
    "root": Key("root", _text()),
    "extra": Key("extra", _text()),
    "cmdline": Key("extra", _text()),
    "disk": Key("disks", _disks),
    "vif": Key("vifs", _vifs),
    "cpu": Key("cpu", _cpu),
    "machine": Key("machine", _text()),
    "on_poweroff": Key("on_poweroff", _action),
    "on_reboot": Key("on_reboot", _action),
    "on_crash": Key("on_crash", _action),
}
