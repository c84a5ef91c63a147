r"""S-expressions: the one notation of relocd's settings, of domain records and of the dialogue.

The grammar is xend's, so that files written for it still load:

- A value is a list ``( ... )``, a string in either quotes, or an atom. All are text; there are no numbers.
- Space, tab, newline, vertical tab, form feed and carriage return separate. ``#`` begins a comment to the
  end of the line, also right behind an atom. Adjacent values need no space: ``'x'y`` is two.
- An atom is printable ASCII. It ends at white space, a comment or one of ``{ } ( ) < > [ ] ;``. Quotes and
  backslashes inside it are plain characters.
- A string may span lines. Escapes: ``\a \b \t \n \v \f \r \\ \' \"``, octal ``\ooo``, hexadecimal
  ``\xHH`` and (relocd's own, for text beyond Latin-1) ``\uHHHH`` and ``\UHHHHHHHH``.

Two things differ from xend on purpose. An escape that is not in this list stands for itself, both
characters, where xend dropped the second one and so made a lone backslash of ``'\.'``. And an unfinished
list is always an error.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import Self, TypeAlias, TypeGuard

from attrs import frozen
from pyparsing import Regex

from relocd.errors import ConfigError


@frozen
class Limits:
    """What a text may ask for before it is refused.

    ``size_bytes`` counts UTF-8, ``depth`` nested lists, ``items`` values of all kinds. The defaults are those
    of one message of the dialogue.
    """

    size_bytes: int = 65536
    depth: int = 32
    items: int = 10000


DEFAULT_LIMITS = Limits()


class Atom(str):
    """A text and where it began, ``line`` and ``column`` from 1. Equal to a ``str`` of the same text."""

    __slots__ = ("column", "line", "quoted")

    line: int
    column: int
    quoted: bool
    """Whether it was written in quotes."""

    def __new__(cls, text: str, line: int = 0, column: int = 0, quoted: bool = False) -> Self:
        atom = super().__new__(cls, text)
        atom.line = line
        atom.column = column
        atom.quoted = quoted
        return atom


class SList(tuple["Node", ...]):
    """A list and where its parenthesis opened. Equal to any ``tuple`` of the same values."""

    line: int
    column: int

    def __new__(cls, items: Sequence[Node] = (), line: int = 0, column: int = 0) -> Self:
        node = super().__new__(cls, items)
        node.line = line
        node.column = column
        return node


Node: TypeAlias = Atom | SList
"""What is read."""

Value: TypeAlias = "str | int | float | bool | Sequence[Value] | None"
"""What can be written. Reading it back gives texts: ``yes`` and ``no`` for bool, ``none`` for None."""


def parse(text: str, *, source: str = "<text>", limits: Limits = DEFAULT_LIMITS) -> tuple[Node, ...]:
    """Read all values in ``text``. Raises ConfigError at the place where it stops making sense."""
    return _Reader(text, source, limits).read()


def parse_one(text: str, *, source: str = "<text>", limits: Limits = DEFAULT_LIMITS) -> Node:
    """Read a text that must hold exactly one value. Raises ConfigError as :func:`parse` does."""
    nodes = parse(text, source=source, limits=limits)
    if not nodes:
        raise ConfigError("there is no value here", source=source, line=1, column=1)
    if len(nodes) > 1:
        raise error_at(nodes[1], "unexpected second value: one was expected", source=source)
    return nodes[0]


def error_at(node: Node, message: str, *, source: str, hint: str = "") -> ConfigError:
    """A ConfigError that points at ``node``."""
    return ConfigError(message, source=source, line=node.line, column=node.column, hint=hint)


# One element with a named group for each kind of token. pyparsing's own matching loop costs about 5 us a
# token, which a full message would turn into a pause of the reactor; _Reader steps through the element's
# compiled expression instead, thirty times faster. Possessive quantifiers keep an unclosed quote linear.
_TOKEN = Regex(
    r"""
    [ \t\n\v\f\r]*+ (?: \#[^\n]*+ [ \t\n\v\f\r]*+ )*+
    (?: (?P<open>\()
      | (?P<close>\))
      | '(?P<single>[^'\\]*+ (?:\\.[^'\\]*+)*+)'
      | "(?P<double>[^"\\]*+ (?:\\.[^"\\]*+)*+)"
      | (?P<atom>[!$-&*-~] [!"$-'*-:=?-Z\\^-z|~]*+)
      | (?P<end>\Z)
    )
    """,
    flags=re.VERBOSE | re.DOTALL,
)
_BLANK = re.compile(r"[ \t\n\v\f\r]*+(?:#[^\n]*+[ \t\n\v\f\r]*+)*+")
_SURROGATE = re.compile("[\ud800-\udfff]")
_ESCAPE = re.compile(
    r"\\(?:(?P<octal>[0-3][0-7]{0,2}|[4-7][0-7]?)|x(?P<hex>[0-9a-fA-F]{1,2})"
    r"|u(?P<u4>[0-9a-fA-F]{4})|U(?P<u8>[0-9a-fA-F]{8})|(?P<other>.))",
    re.DOTALL,
)
_ESCAPED = {
    "a": "\a",
    "b": "\b",
    "t": "\t",
    "n": "\n",
    "v": "\v",
    "f": "\f",
    "r": "\r",
    "\\": "\\",
    "'": "'",
    '"': '"',
}


class BadEscapeError(ValueError):
    """An escape that stands for no character, ``offset`` characters into the text."""

    def __init__(self, escape: str, offset: int) -> None:
        super().__init__(f"{escape} is not a character")
        self.offset = offset


def unescape(body: str) -> str:
    """Replace the escapes in what was between quotes. Raises BadEscapeError."""
    return _ESCAPE.sub(_escaped, body) if "\\" in body else body


def _escaped(escape: re.Match[str]) -> str:
    kind = escape.lastgroup
    if kind == "other":
        return _ESCAPED.get(escape["other"], escape[0])
    code = int(escape[kind or 0], 8 if kind == "octal" else 16)
    if code > 0x10FFFF or 0xD800 <= code <= 0xDFFF:
        raise BadEscapeError(escape[0], escape.start())
    return chr(code)


class _Reader:
    """One pass over one text. The tree grows on an explicit stack, so its depth costs no Python frames."""

    def __init__(self, text: str, source: str, limits: Limits) -> None:
        self._text = text
        self._source = source
        self._limits = limits
        self._line_starts = [0]
        self._count = 0
        self._items: list[Node] = []
        self._open: list[tuple[list[Node], int]] = []

    def read(self) -> tuple[Node, ...]:
        self._check_text()
        self._line_starts += [newline.end() for newline in re.finditer("\n", self._text)]
        match = _TOKEN.re.match
        offset = 0
        while True:
            token = match(self._text, offset)
            if token is None:
                raise self._unreadable(offset)
            kind = token.lastgroup
            if kind == "end":
                break
            self._take(kind, token)
            offset = token.end()
        if self._open:
            raise self._error("this list is never closed", self._open[-1][1], hint="Add the missing ')'.")
        return tuple(self._items)

    def _take(self, kind: str | None, token: re.Match[str]) -> None:
        if kind == "close":
            self._close(token.start(kind))
            return
        self._count += 1
        if self._count > self._limits.items:
            raise self._error(f"more than {self._limits.items} values", token.start(kind or 0))
        if kind == "open":
            self._descend(token.start(kind))
        elif kind == "atom":
            self._items.append(Atom(token["atom"], *self._place(token.start("atom"))))
        else:
            self._string(token[kind or 0], token.start(kind or 0))

    def _string(self, body: str, start: int) -> None:
        try:
            text = unescape(body)
        except BadEscapeError as error:
            raise self._error(str(error), start + error.offset) from None
        self._items.append(Atom(text, *self._place(start - 1), quoted=True))

    def _descend(self, offset: int) -> None:
        if len(self._open) >= self._limits.depth:
            raise self._error(f"lists are nested more than {self._limits.depth} deep", offset)
        self._open.append((self._items, offset))
        self._items = []

    def _close(self, offset: int) -> None:
        if not self._open:
            raise self._error("')' without a '(' before it", offset)
        items, (self._items, opened) = self._items, self._open.pop()
        self._items.append(SList(items, *self._place(opened)))

    def _check_text(self) -> None:
        limit = self._limits.size_bytes
        if len(self._text) > limit or len(self._text.encode(errors="surrogatepass")) > limit:
            raise ConfigError(f"the text is longer than {limit} bytes", source=self._source)
        if bad := _SURROGATE.search(self._text):
            raise self._error("this is not UTF-8 text", bad.start())

    def _unreadable(self, offset: int) -> ConfigError:
        """Say why no token begins at ``offset``."""
        blank = _BLANK.match(self._text, offset)
        offset = blank.end() if blank else offset
        char = self._text[offset]
        if char in "'\"":
            return self._error(f"this string is never closed: no {char} follows", offset)
        return self._error(
            f"unexpected character U+{ord(char):04X}",
            offset,
            hint="Put text that is not plain ASCII in quotes.",
        )

    def _place(self, offset: int) -> tuple[int, int]:
        line = bisect_right(self._line_starts, offset)
        return line, offset - self._line_starts[line - 1] + 1

    def _error(self, message: str, offset: int, *, hint: str = "") -> ConfigError:
        line, column = self._place(offset)
        return ConfigError(message, source=self._source, line=line, column=column, hint=hint)


_PLAIN = re.compile(r"[A-Za-z0-9._:/~@+,=%^$*|-]+")
_WRITTEN = {"\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}


def dumps(value: Value) -> str:
    """Write a value in one line of printable characters, so that ``parse_one`` reads the same texts back.

    A lone surrogate (a byte of a file name that is not UTF-8) becomes U+FFFD. Raises ValueError for a float
    that is no number, TypeError for anything that is not a :data:`Value`.
    """
    written: list[str] = []
    pending: list[Iterator[Value]] = [iter((value,))]
    while pending:
        for item in pending[-1]:
            if written and written[-1] != "(":
                written.append(" ")
            if _is_list(item):
                written.append("(")
                pending.append(iter(item))
                break
            written.append(_word(item))
        else:
            pending.pop()
            if pending:
                written.append(")")
    return "".join(written)


def pretty(value: Value, *, width: int = 80) -> str:
    """Write a value for people: a list that is too wide is broken, one of its lists a line, as xm did."""
    return "\n".join(_layout(value, "", width))


def _layout(value: Value, indent: str, width: int) -> Iterator[str]:
    line = indent + dumps(value)
    if not _is_list(value) or len(line) <= width or not any(_is_list(item) for item in value):
        yield line
        return
    words = 0
    while not _is_list(value[words]):
        words += 1
    yield f"{indent}({' '.join(dumps(word) for word in value[:words])}"
    for item in value[words:]:
        yield from _layout(item, indent + "    ", width)
    yield f"{indent})"


def _is_list(value: Value) -> TypeGuard[Sequence[Value]]:
    return isinstance(value, tuple | list)


def _word(value: Value) -> str:
    match value:
        case str():
            return _quoted(value)
        case bool():
            return "yes" if value else "no"
        case None:
            return "none"
        case float() if not math.isfinite(value):
            raise ValueError(f"{value} cannot be written")
        case int() | float():
            return repr(value)
    raise TypeError(f"{type(value).__name__} cannot be written")


def _quoted(text: str) -> str:
    if _PLAIN.fullmatch(text):
        return text
    quote = '"' if "'" in text and '"' not in text else "'"
    return quote + "".join(_written(char, quote) for char in text) + quote


def _written(char: str, quote: str) -> str:
    if char == quote:
        return "\\" + char
    if char in _WRITTEN:
        return _WRITTEN[char]
    if char.isprintable():
        return char
    code = ord(char)
    if 0xD800 <= code <= 0xDFFF:
        return "\ufffd"
    return f"\\x{code:02x}" if code <= 0xFF else f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"
