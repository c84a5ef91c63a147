"""The texts that a pattern of the allow-list matches, as a machine that reads one character after the other.

A packet filter knows no regular expressions. With the machine one can ask which addresses an expression matches
in full without trying all of them: texts that lead into the same states go on alike.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from attrs import define, field, frozen

from relocd.patterns import FLAGS, compiler, parser

#: What addresses and host names consist of. Patterns ignore case, so small letters stand for both.
ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyz.-_:%"

#: Larger machines are not built.
MAX_STATES = 4000

#: More repeats than this are as good as endless: the longest address has 45 characters, the longest name 253.
_ENDLESS = 253

States = frozenset[int]
_Tree = Any  # re._parser.SubPattern

_BEGIN, _END, _ALWAYS = "begin", "end", "always"
_ANCHORS = {"AT_BEGINNING": _BEGIN, "AT_BEGINNING_STRING": _BEGIN, "AT_END": _END, "AT_END_STRING": _END}


class NotRegularError(ValueError):
    """The expression looks around, refers back, or is too large."""


@frozen
class Language:
    """All texts that one expression matches in full."""

    _read: tuple[tuple[tuple[frozenset[str], int], ...], ...]
    _skip: tuple[tuple[tuple[str, int], ...], ...]
    _last: int
    _live: States
    """States from which the end can be reached at all."""
    _steps: dict[tuple[States, str], States] = field(factory=dict, repr=False, eq=False)

    def start(self) -> States:
        """The states before the first character."""
        return self._closure({0}, {_ALWAYS, _BEGIN})

    def step(self, states: States, text: str) -> States:
        """The states after ``text``; none if nothing that begins like that matches."""
        for char in text:
            known = self._steps.get((states, char))
            if known is None:
                read = {after for state in states for chars, after in self._read[state] if char in chars}
                known = self._closure(read, {_ALWAYS})
                self._steps[states, char] = known
            states = known
        return states

    def accepts(self, states: States) -> bool:
        """Whether the text that led here matches."""
        return self._last in self._closure(set(states), {_ALWAYS, _END})

    def alive(self, states: States) -> frozenset[str]:
        """The characters with which a match may go on from here."""
        return frozenset(char for char in ALPHABET if self._live & self.step(states, char))

    def words(self, limit: int) -> tuple[str, ...] | None:
        """All texts, or None if there are more than ``limit``."""
        found: list[str] = []
        frontier = [("", self.start())]
        while frontier:
            found += [text for text, states in frontier if self.accepts(states) and text]
            if len(found) + len(frontier) > 2 * limit:  # each in the frontier leads to a text of its own
                return None
            frontier = [
                (text + char, self.step(states, char))
                for text, states in frontier
                for char in sorted(self.alive(states))
            ]
        return tuple(found) if len(found) <= limit else None

    def _closure(self, states: set[int], allowed: set[str]) -> States:
        found, left = set(states), list(states)
        while left:
            for when, after in self._skip[left.pop()]:
                if when in allowed and after not in found:
                    found.add(after)
                    left.append(after)
        return frozenset(found)


def language_of(text: str) -> Language:
    """The texts that match ``text``, which relocd.patterns has accepted. Raises NotRegularError."""
    if parser is None or compiler is None:
        raise NotRegularError("this Python does not show how it reads expressions")
    tree = parser.parse(text, FLAGS)
    builder = _Builder(tree.state)
    last = builder.sequence(tree, builder.new())
    read, skip = tuple(map(tuple, builder.read)), tuple(map(tuple, builder.skip))
    return Language(read, skip, last, builder.live(last))


@define
class _Builder:
    _state: Any
    read: list[list[tuple[frozenset[str], int]]] = field(factory=list)
    skip: list[list[tuple[str, int]]] = field(factory=list)

    def new(self) -> int:
        if len(self.read) >= MAX_STATES:
            raise NotRegularError("it is too large")
        self.read.append([])
        self.skip.append([])
        return len(self.read) - 1

    def live(self, last: int) -> States:
        """From where ``last`` can be reached: past the anchor of the end, nothing is read any more."""
        silent = self._before({last}, {_ALWAYS, _END}, reading=False)
        return self._before(silent, {_ALWAYS}, reading=True)

    def _before(self, states: Iterable[int], allowed: set[str], *, reading: bool) -> States:
        back: list[list[int]] = [[] for _ in self.read]
        for state, edges in enumerate(self.skip):
            for when, after in edges:
                if when in allowed:
                    back[after].append(state)
        for state, reads in enumerate(self.read if reading else ()):
            for chars, after in reads:
                if chars:
                    back[after].append(state)
        found, left = set(states), list(states)
        while left:
            new = [state for state in back[left.pop()] if state not in found]
            found.update(new)
            left += new
        return frozenset(found)

    def sequence(self, tree: _Tree, at: int) -> int:
        for operation, argument in tree:
            at = self._item(operation, argument, at)
        return at

    def _item(self, operation: Any, argument: Any, at: int) -> int:
        match operation.name:
            case "LITERAL" | "NOT_LITERAL" | "IN" | "ANY":
                return self._character((operation, argument), at)
            case "SUBPATTERN":
                return self.sequence(argument[-1], at)
            case "BRANCH":
                return self._branch(argument[1], at)
            case "MAX_REPEAT" | "MIN_REPEAT":
                return self._repeat(argument, at)
            case "AT" if argument.name in _ANCHORS:
                after = self.new()
                self.skip[at].append((_ANCHORS[argument.name], after))
                return after
        raise NotRegularError("it looks around or refers back")

    def _character(self, item: tuple[Any, Any], at: int) -> int:
        pattern = compiler.compile(parser.SubPattern(self._state, [item]), FLAGS)
        after = self.new()
        self.read[at].append((frozenset(filter(pattern.fullmatch, ALPHABET)), after))
        return after

    def _branch(self, choices: list[_Tree], at: int) -> int:
        after = self.new()
        for choice in choices:
            first = self.new()
            self.skip[at].append((_ALWAYS, first))
            self.skip[self.sequence(choice, first)].append((_ALWAYS, after))
        return after

    def _repeat(self, argument: tuple[int, int, _Tree], at: int) -> int:
        low, high, body = argument
        for _ in range(min(low, _ENDLESS + 1)):
            at = self.sequence(body, at)
        if high > _ENDLESS:
            loop = self.new()
            self.skip[at].append((_ALWAYS, loop))
            self.skip[self.sequence(body, loop)].append((_ALWAYS, loop))
            at = loop
        after = self.new()
        self.skip[at].append((_ALWAYS, after))
        for _ in range(low, high if high <= _ENDLESS else low):
            at = self.sequence(body, at)
            self.skip[at].append((_ALWAYS, after))
        return after
