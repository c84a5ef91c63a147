"""Read and write the fields of a message: ``(head (key value ...) ...)``, each checked for type and size."""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Iterable
from typing import TypeVar
from uuid import UUID

from relocd.errors import ConfigError, ProtocolError
from relocd.printable import printable
from relocd.sxp import Atom, Node, SList, Value, dumps, parse_one

T = TypeVar("T")
Word = TypeVar("Word", bound=enum.StrEnum)

_HEX = re.compile(r"[0-9a-f]{2,128}")


class Fields:
    """The fields of one received message. Every getter raises ProtocolError naming message and field.

    Unknown fields are skipped, but for those whose name ends in ``!``: their sender says that the message
    cannot be understood without them.
    """

    def __init__(self, message: str, values: dict[str, tuple[Node, ...]]) -> None:
        self.message = message
        self._values = values

    def check_mandatory(self, known: Iterable[str]) -> None:
        """Refuse a message that carries a mandatory field that this version does not know."""
        unknown = {key for key in self._values if key.endswith("!")} - {f"{key}!" for key in known}
        if unknown:
            raise ProtocolError(
                f"'{self.message}' carries mandatory fields unknown here: {', '.join(sorted(unknown))}",
                hint="Upgrade relocd on this host, or use features that both versions know.",
            )

    def has(self, key: str) -> bool:
        return key in self._values

    def nodes(self, key: str) -> tuple[Node, ...]:
        """All values of a field; none if it is absent."""
        return self._values.get(key, ())

    def node(self, key: str) -> Node:
        """The only value of a field, whatever it is."""
        values = self._values.get(key)
        if values is None:
            raise ProtocolError(f"'{self.message}' lacks the field '{key}'")
        if len(values) != 1:
            raise ProtocolError(f"'{self.message}': the field '{key}' must have one value")
        return values[0]

    def text(self, key: str, default: str | None = None) -> str:
        """A text, made safe to print."""
        if default is not None and key not in self._values:
            return default
        return printable(self._atom(key))

    def exact(self, key: str, pattern: re.Pattern[str], default: str | None = None) -> str:
        """A text that must match in full."""
        if default is not None and key not in self._values:
            return default
        value = self._atom(key)
        if not pattern.fullmatch(value):
            raise ProtocolError(f"'{self.message}': bad value for '{key}'")
        return value

    def hex(self, key: str) -> str:
        return self.exact(key, _HEX)

    def number(self, key: str, low: int, high: int, default: int | None = None) -> int:
        """An integer from ``low`` to ``high``, both included."""
        if default is not None and key not in self._values:
            return default
        return to_number(self._atom(key), low, high, f"'{self.message}': '{key}'")

    def flag(self, key: str, default: bool | None = None) -> bool:
        if default is not None and key not in self._values:
            return default
        value = self._atom(key)
        if value not in ("yes", "no"):
            raise ProtocolError(f"'{self.message}': '{key}' must be yes or no")
        return value == "yes"

    def uuid(self, key: str) -> UUID:
        return to_uuid(self._atom(key), f"'{self.message}': '{key}'")

    def texts(self, key: str, limit: int) -> tuple[str, ...]:
        """Any number of texts up to ``limit``."""
        values = self.nodes(key)
        if len(values) > limit or not all(isinstance(value, Atom) for value in values):
            raise ProtocolError(f"'{self.message}': '{key}' must hold at most {limit} words")
        return tuple(printable(str(value)) for value in values)

    def pair(self, key: str) -> tuple[str, str]:
        """Exactly two texts."""
        values = self.texts(key, 2)
        if len(values) != 2:
            raise ProtocolError(f"'{self.message}': '{key}' must hold two words")
        return values[0], values[1]

    def word(self, key: str, kind: type[Word]) -> Word:
        """One of an enumeration."""
        try:
            return kind(self.text(key))
        except ValueError:
            raise ProtocolError(f"'{self.message}': bad value for '{key}'") from None

    def records(self, key: str, width: int, limit: int) -> tuple[tuple[str, ...], ...]:
        """Lists of exactly ``width`` texts, at most ``limit`` of them."""
        rows = self.nodes(key)
        if len(rows) > limit:
            raise ProtocolError(f"'{self.message}': more than {limit} entries in '{key}'")
        return tuple(self._record(key, row, width) for row in rows)

    def _record(self, key: str, row: Node, width: int) -> tuple[str, ...]:
        if not isinstance(row, SList) or len(row) != width or not all(isinstance(cell, Atom) for cell in row):
            raise ProtocolError(f"'{self.message}': each entry of '{key}' must be a list of {width} words")
        return tuple(printable(str(cell)) for cell in row)

    def _atom(self, key: str) -> str:
        value = self.node(key)
        if not isinstance(value, Atom):
            raise ProtocolError(f"'{self.message}': the field '{key}' must be a word")
        return str(value)


def to_number(text: str, low: int, high: int, what: str) -> int:
    """Parse a decimal integer within bounds, or raise ProtocolError."""
    if not re.fullmatch(r"-?[0-9]{1,19}", text) or not low <= int(text) <= high:
        raise ProtocolError(f"{what} must be a whole number from {low} to {high}")
    return int(text)


def to_uuid(text: str, what: str) -> UUID:
    """Parse a UUID, or raise ProtocolError."""
    try:
        return UUID(text)
    except ValueError:
        raise ProtocolError(f"{what} must be a UUID") from None


def checked(parse: Callable[[], T]) -> T:
    """Run a parser of the files' grammar on a peer's text: its ConfigError becomes a ProtocolError."""
    try:
        return parse()
    except ConfigError as error:
        raise ProtocolError(f"{error.reason} (column {error.column})", hint=error.hint) from None


def read_line(line: bytes) -> tuple[str, Fields]:
    """Split one line into the message's head and its fields. A bare word is a message without fields."""
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError:
        raise ProtocolError("a message is not UTF-8 text") from None
    node = checked(lambda: parse_one(text, source="message"))
    if isinstance(node, Atom):
        return printable(str(node)), Fields(printable(str(node)), {})
    if not node or not isinstance(node[0], Atom):
        raise ProtocolError("a message must begin with its name")
    head = printable(str(node[0]))
    values: dict[str, tuple[Node, ...]] = {}
    for item in node[1:]:
        if not isinstance(item, SList) or not item or not isinstance(item[0], Atom):
            raise ProtocolError(f"'{head}': every field must be a list that begins with its name")
        if str(item[0]) in values:
            raise ProtocolError(f"'{head}': the field '{printable(str(item[0]))}' appears twice")
        values[str(item[0])] = tuple(item[1:])
    return head, Fields(head, values)


def write_line(head: str, fields: Iterable[tuple[Value, ...]] = ()) -> bytes:
    """The opposite of read_line, newline included."""
    return dumps((head, *fields)).encode("utf-8") + b"\n"
