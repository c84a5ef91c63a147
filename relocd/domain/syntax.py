r"""The notation of domain files: ``key = value`` as xm and xl have it. It is read, never executed.

    name = "web"            # a comment
    memory = 512; vcpus = 2
    disk = [ 'phy:/dev/vg0/web,xvda,w',
             'file:/srv/cd.iso,hdc:cdrom,r', ]

Values are strings in either quotes (adjacent ones are one), whole and decimal numbers, True and False (1 and 0),
and lists of values, in which lines may break anywhere. Escapes in strings are those of :mod:`relocd.sxp`.
"""

from __future__ import annotations

from attrs import frozen
from pyparsing import (
    And,
    Opt,
    ParseBaseException,
    ParseFatalException,
    ParserElement,
    ParseResults,
    Regex,
    Suppress,
    ZeroOrMore,
    col,
    lineno,
)

from relocd.errors import ConfigError
from relocd.sxp import BadEscapeError, unescape

MAX_CHARACTERS = 65536
MAX_LIST_DEPTH = 4
"""xl's deepest list has two levels. The grammar is built level by level, so that no text makes it recurse."""

_HINT = "Domain files are read, not executed: each line is key = value, with a string, a number or a list."


@frozen
class Item:
    """A value and where it begins; ``line`` and ``column`` count from 1."""

    value: str | int | float | tuple[Item, ...]
    line: int = 0
    column: int = 0


@frozen
class Setting:
    """``key = value`` and where the key begins."""

    key: str
    item: Item
    line: int
    column: int


def read_settings(text: str, *, source: str) -> tuple[Setting, ...]:
    """Read a domain file. Raises ConfigError with the place."""
    if len(text) > MAX_CHARACTERS:
        raise ConfigError(f"a domain file of more than {MAX_CHARACTERS} characters", source=source)
    try:
        return tuple(_FILE.parse_string(text))
    except ParseBaseException as error:
        line, column = error.lineno, error.column
        raise ConfigError(_explain(error), source=source, line=line, column=column, hint=_HINT) from None


def read_value(text: str, *, source: str) -> Item:
    """Read what stands behind ``key=`` on a command line: a string or list in this notation, else a bare text.

    Raises ConfigError for what begins like a string or list and is none.
    """
    if not text.lstrip().startswith(("'", '"', "[")):
        return Item(text)
    try:
        (item,) = _ONE_VALUE.parse_string(text)
    except ParseBaseException as error:
        raise ConfigError(_explain(error), source=source) from None
    assert isinstance(item, Item)
    return Item(item.value)


def _explain(error: ParseBaseException) -> str:
    if type(error) is ParseFatalException:
        return error.msg
    rest = error.pstr[error.loc :].split("\n", 1)[0][:40]
    found = repr(rest) if rest else "the end of the line"
    return f"{error.msg[:1].lower()}{error.msg[1:]}, found {found}"


def _item(text: str, offset: int, tokens: ParseResults) -> Item:
    return Item(tokens[0], lineno(offset, text), col(offset, text))


def _string(text: str, offset: int, tokens: ParseResults) -> str:
    try:
        return unescape(tokens[0][1:-1])
    except BadEscapeError as error:
        raise ParseFatalException(text, offset + 1 + error.offset, str(error)) from None


def _number(tokens: ParseResults) -> int | float:
    return float(tokens[0]) if "." in tokens[0] else int(tokens[0], 0)


def _setting(text: str, offset: int, tokens: ParseResults) -> Setting:
    return Setting(tokens[0], tokens[1], lineno(offset, text), col(offset, text))


def _token(pattern: str, name: str) -> ParserElement:
    return Regex(pattern).leave_whitespace().set_name(name)


_BLANK = Suppress(_token(r"(?:[ \t\r\f\v]|\\\r?\n)*+", "blank"))
_GAP = Suppress(_token(r"(?:[ \t\r\f\v\n]|\\\r?\n|#[^\n]*+)*+", "white space"))
_BETWEEN = Suppress(_token(r"(?:[ \t\r\f\v\n;]|\\\r?\n|#[^\n]*+)*+", "the next line"))
_END = Suppress(_token(r"(?=[;\n#]|\Z)", "the end of the line or ';'"))
_FILE_END = Suppress(_token(r"\Z", "key = value"))
_KEY = _token(r"[A-Za-z_][A-Za-z0-9_]*", "a key")
_EQUALS = Suppress(_token("=", "'='"))
_OPEN = Suppress(_token(r"\[", "'['"))
_COMMA = Suppress(_token(",", "','"))
_CLOSE = Suppress(_token(r"\]", "a value, ',' or ']'"))
_STRING = _token(r"""'(?:[^'\\\n]|\\[^\n])*+'|"(?:[^"\\\n]|\\[^\n])*+\"""", "a string").add_parse_action(
    _string
)
_NUMBER = _token(
    r"[+-]?(?:0[xX][0-9a-fA-F]{1,15}|(?:0|[1-9][0-9]{0,17})(?:\.[0-9]{0,17})?)(?![0-9A-Za-z_.])", "a number"
).add_parse_action(_number)
_TRUTH = _token(r"(?:True|False)(?![0-9A-Za-z_.])", "a number").add_parse_action(
    lambda t: int(t[0] == "True")
)


def _value(depth: int, blank: ParserElement) -> ParserElement:
    """A value with lists up to ``depth`` levels; ``blank`` is what may stand between adjacent strings."""
    string = And([_STRING, ZeroOrMore(blank + _STRING)]).add_parse_action("".join)
    value = string | _NUMBER | _TRUTH
    if depth:
        value = value | _list(_value(depth - 1, _GAP))
    return value.set_name("a value").add_parse_action(_item)


def _list(value: ParserElement) -> ParserElement:
    values = value + ZeroOrMore(_GAP + _COMMA + _GAP + value) + _GAP + Opt(_COMMA + _GAP)
    brackets = _OPEN - _GAP - Opt(values) - _CLOSE
    return brackets.add_parse_action(lambda tokens: [tuple(tokens)])


_VALUE = _value(MAX_LIST_DEPTH, _BLANK)
_SETTING = (_KEY - _BLANK - _EQUALS - _BLANK - _VALUE - _BLANK - _END).add_parse_action(_setting)
_FILE = (_BETWEEN - ZeroOrMore(_SETTING + _BETWEEN) - _FILE_END).leave_whitespace().parse_with_tabs()
_ONE_VALUE = (_BLANK + _VALUE + _BLANK + _FILE_END).leave_whitespace().parse_with_tabs()
