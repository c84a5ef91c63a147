"""From the text of relocd-config.sxp, or of an old xend-config.sxp, to a Config and what there is to say about it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from attrs import frozen

from relocd.config import xend
from relocd.config.keys import BY_NAME, Key
from relocd.config.model import Config
from relocd.errors import ConfigError
from relocd.nearest import suggestion
from relocd.sxp import Atom, Limits, Node, SList, error_at, parse

LIMITS = Limits(size_bytes=1 << 20)


@frozen
class Loaded:
    """A configuration, and a sentence with its place for everything in the file that deserves a second look."""

    config: Config
    warnings: tuple[str, ...]


def load_config(text: str, *, source: str) -> Loaded:
    """Read the text of a configuration file; ``source`` is its name for messages.

    What is not set has its default. Of a setting that appears twice the first counts, as with xend. Raises
    ConfigError, with its place, for what cannot be read or cannot be the value of its setting.
    """
    loader = _Loader(source)
    for node in parse(text, source=source, limits=LIMITS):
        loader.take(node)
    return loader.finish()


class _Loader:
    def __init__(self, source: str) -> None:
        self._source = source
        self._values: dict[str, Any] = {}
        self._lines: dict[str, int] = {}
        self._warnings: list[str] = []
        self._is_of_xend = False

    def take(self, node: Node) -> None:
        if not isinstance(node, SList) or not node or not isinstance(node[0], Atom):
            raise self._error(node, "a setting is written (name value)")
        name = node[0]
        key = BY_NAME.get(name)
        if key is None:
            self._overlook(name)
        elif key.field in self._values:
            self._warn(name, f"'{name}' is set in line {self._lines[key.field]} already, and that counts")
        else:
            atoms = self._atoms(node, key)
            self._values[key.field] = self._value(node, key, atoms)
            self._lines[key.field] = name.line
            if name in key.aliases:
                self._compare_with_xend(node, key, atoms)

    def finish(self) -> Loaded:
        if self._is_of_xend and "hosts_allow" not in self._values:
            self._say(
                "xend let in every host without xend-relocation-hosts-allow; relocd lets in this host only"
            )
        if self._is_of_xend and "relocation_server" not in self._values:
            self._say(
                "xend did not listen without (xend-relocation-server yes); relocd does, unless it is no"
            )
        return Loaded(Config(**self._values), tuple(self._warnings))

    def _atoms(self, node: SList, key: Key) -> list[Atom]:
        """The values of a setting. A list of values may be in parentheses of its own."""
        values: Sequence[Node] = node[1:]
        if key.kind.many and len(values) == 1 and isinstance(values[0], SList):
            values = values[0]
        atoms = [value for value in values if isinstance(value, Atom)]
        if len(atoms) < len(values):
            raise self._error(node, f"'{node[0]}' takes no list")
        return atoms

    def _value(self, node: SList, key: Key, atoms: list[Atom]) -> Any:
        if key.kind.many:
            return tuple(word for atom in atoms for word in self._parse(node, key, atom))
        if len(atoms) > 1:
            raise self._error(
                atoms[1], f"'{node[0]}' takes one value", hint="Put a value with spaces in quotes."
            )
        return self._parse(node, key, atoms[0] if atoms else Atom("", node.line, node.column))

    def _parse(self, node: SList, key: Key, atom: Atom) -> Any:
        try:
            return key.kind.parse(str(atom))
        except ConfigError as error:
            raise self._error(atom, f"'{node[0]}': {error.reason}", hint=error.hint) from None
        except ValueError as error:
            hint = f"The default is {key.default_text}."
            raise self._error(atom, f"'{node[0]}' {error}: {atom[:80]!r}", hint=hint) from None

    def _overlook(self, name: Atom) -> None:
        if name in xend.WITHOUT_MEANING:
            self._is_of_xend = True
            self._warn(name, f"'{name}' has no meaning for relocd. {xend.WITHOUT_MEANING[name]}".rstrip())
        else:
            hint = suggestion(name, BY_NAME)
            self._warn(name, f"there is no setting '{name[:80]}', and it was overlooked. {hint}".rstrip())

    def _compare_with_xend(self, node: SList, key: Key, atoms: list[Atom]) -> None:
        self._is_of_xend = True
        if key.field == "hosts_allow":
            for atom, text in xend.differences(atoms):
                self._warn(atom or node, text)

    def _warn(self, node: Node, text: str) -> None:
        self._warnings.append(f"{self._source}:{node.line}:{node.column}: {text}")

    def _say(self, text: str) -> None:
        self._warnings.append(f"{self._source}: {text}")

    def _error(self, node: Node, message: str, *, hint: str = "") -> ConfigError:
        return error_at(node, message, source=self._source, hint=hint)
