r"""Regular expressions that an administrator writes and a peer's name is matched with.

The peer has a say in the text (a host name comes out of its DNS), so an expression must not be able to take
long on any text. Python's engine tries the ways through an expression one after the other;
:func:`compile_pattern` counts them beforehand and refuses an expression that has too many.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from itertools import zip_longest
from typing import Any

from relocd.errors import ConfigError

try:
    from re import _compiler, _parser  # type: ignore[attr-defined]  # private: typeshed does not know them
except ImportError:  # pragma: no cover - for a Python that has moved them
    _compiler = _parser = None

parser: Any = _parser
compiler: Any = _compiler

MAX_PATTERN_CHARACTERS = 256
MAX_SUBJECT_CHARACTERS = 253
"""The longest name in the DNS (RFC 1035, 2.3.4, written out)."""

MAX_WAYS = (MAX_SUBJECT_CHARACTERS + 1) ** 3
"""Three open-ended repeats in a row: some 50 ms for the worst name. A fourth makes it seconds."""

GROUP_COST = 8
"""How much longer a way takes that goes through a repeated group than one through repeated characters."""

_Tree = Any  # re._parser.SubPattern, a sequence of (operation, argument)
FLAGS = re.IGNORECASE | re.ASCII
_REPEATS = ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT")
_ONE_CHARACTER = ("LITERAL", "NOT_LITERAL", "IN", "ANY")


def compile_pattern(text: str) -> re.Pattern[str]:
    """Compile an expression for host names and addresses: ASCII, upper and lower case alike.

    Raises ConfigError, which knows no place, if it is no regular expression or could take long to match.
    """
    if len(text) > MAX_PATTERN_CHARACTERS:
        raise _wrong(f"{text[:40]}...", f"is longer than {MAX_PATTERN_CHARACTERS} characters")
    if not text.isprintable():
        raise _wrong(text, "holds a control character", hint=r"In quotes, '\b' is written '\\b'.")
    try:
        compiled = re.compile(text, FLAGS)
    except (re.error, OverflowError, RecursionError) as error:
        raise _wrong(text, f"is not a regular expression: {error}") from None
    if is_slow(text):
        raise _wrong(
            text,
            "could take very long to match",
            hint="Repeat nothing that holds a repeat or alternatives, and have three '*' and '+' at most: "
            r"'[a-z0-9.-]+' instead of '([a-z0-9-]+\.?)+'.",
        )
    return compiled


def _wrong(text: str, why: str, *, hint: str = "") -> ConfigError:
    return ConfigError(f"the pattern {text!r} {why}", source="allow-list", hint=hint)


def is_slow(text: str) -> bool:
    """Whether there are more than :data:`MAX_WAYS` ways to match a name of full length."""
    return looks_slow(text) if parser is None else ways_of(text) > MAX_WAYS


def ways_of(text: str) -> float:
    """How many ways there are to try on the worst name: a measure of the time that takes.

    Without Python's parser nothing is known but that :func:`looks_slow` has nothing against it.
    """
    return 1.0 if parser is None else _ways(parser.parse(text))


def looks_slow(text: str) -> bool:
    """The same from the text alone, and stricter: what is left where Python does not show its parser."""
    return bool(re.search(r"\)[*+{]", text)) or len(re.findall(r"[*+{]", text)) > 3


def may_match_letters(text: str) -> bool:
    """Whether the expression can match a letter. One that cannot is for IPv4 addresses, not for names."""
    return parser is None or _has_letters(parser.parse(text))


def reaches_end(text: str) -> bool:
    """Whether a match from the start is always a match of the whole, as with ``$`` or ``.*`` at the end.

    xend asked for the former only, so an expression for which this is false has become stricter.
    """
    return parser is not None and _reaches_end(parser.parse(text))


def _children(argument: Any) -> Iterator[_Tree]:
    if isinstance(argument, parser.SubPattern):
        yield argument
    elif isinstance(argument, tuple | list):
        for part in argument:
            yield from _children(part)


def _ways(tree: _Tree) -> float:
    items = list(tree)
    pairs = zip_longest(items, items[1:])
    return math.prod(1 if _is_forced(item, after) else _ways_of(*item) for item, after in pairs)


def _is_forced(item: tuple[Any, Any], after: tuple[Any, Any] | None) -> bool:
    r"""Whether a repeat can only end where the character behind it stands, as in ``\d+\.``."""
    operation, argument = item
    if operation.name not in _REPEATS or after is None or after[0].name != "LITERAL":
        return False
    body = argument[2]
    if not _is_one_character(body):
        return False
    return not compiler.compile(body, FLAGS).fullmatch(chr(after[1]))


def _is_one_character(body: _Tree) -> bool:
    return [op.name for op, _ in body] in [[name] for name in _ONE_CHARACTER]


def _ways_of(operation: Any, argument: Any) -> float:
    if operation.name in _REPEATS:
        low, high, body = argument
        longest = MAX_SUBJECT_CHARACTERS
        repeated = _repeated(min(low, longest), min(high, longest), _ways(body))
        return repeated if _is_one_character(body) or high <= 1 else repeated * GROUP_COST
    ways = [_ways(child) for child in _children(argument)]
    return sum(ways) if operation.name in ("BRANCH", "GROUPREF_EXISTS") else math.prod(ways)


def _repeated(low: int, high: int, ways: float) -> float:
    total, power = 0.0, 1.0
    for count in range(max(low, high) + 1):
        if power > MAX_WAYS:
            return math.inf
        if count >= low:
            total += power
        power *= ways
    return total


def _has_letters(tree: _Tree) -> bool:
    return any(
        _is_letter(operation.name, argument) or any(map(_has_letters, _children(argument)))
        for operation, argument in tree
    )


def _is_letter(operation: str, argument: Any) -> bool:
    match operation:
        case "LITERAL":
            return chr(argument).isalpha()
        case "RANGE":
            low, high = argument
            return any(low <= ord(edge) <= high or ord("a") <= low <= ord("z") for edge in "aA")
        case "CATEGORY":
            return str(argument) != "CATEGORY_DIGIT"
        case "IN":
            return any(_is_letter(part.name, value) for part, value in argument)
    return operation in ("ANY", "NOT_LITERAL", "NEGATE")


def _reaches_end(tree: _Tree) -> bool:
    if not len(tree):
        return False
    operation, argument = tree[-1]
    match operation.name:
        case "AT":
            return str(argument) in ("AT_END", "AT_END_STRING")
        case "SUBPATTERN" | "BRANCH":
            return all(map(_reaches_end, _children(argument)))
        case "MAX_REPEAT":
            low, high, body = argument
            return low <= 1 and high >= MAX_SUBJECT_CHARACTERS and [op.name for op, _ in body] == ["ANY"]
    return False
