"""The notation of domain files."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relocd.domain.syntax import MAX_CHARACTERS, Item, read_settings, read_value
from relocd.errors import ConfigError


def plain(item: Item) -> Any:
    return tuple(map(plain, item.value)) if isinstance(item.value, tuple) else item.value


def read(text: str) -> list[tuple[str, Any]]:
    return [(setting.key, plain(setting.item)) for setting in read_settings(text, source="f")]


@pytest.mark.parametrize(
    ("text", "settings"),
    [
        ("", []),
        ("# nothing\n\n ; \n", []),
        ("a = 'b'", [("a", "b")]),
        ('a="b"\r\nc=1\r\n', [("a", "b"), ("c", 1)]),
        ("a=1;b=2 ; ;c=3;", [("a", 1), ("b", 2), ("c", 3)]),
        ("  a\t=\t1 # one\n", [("a", 1)]),
        (
            "a = 0x1F\nb = -5\nc = +5\nd = 0\ne = 1.5\nf = 2.",
            [*zip("abcdef", (31, -5, 5, 0, 1.5, 2.0), strict=True)],
        ),
        ("a = True\nb = False", [("a", 1), ("b", 0)]),
        ("a = ''", [("a", "")]),
        ("a = 'it\\'s' ' \"quoted\" ' \"#;=[\"", [("a", 'it\'s "quoted" #;=[')]),
        (r"a = 'x\ty\x41\101\.'", [("a", "x\tyAA\\.")]),
        ("a = 'b' \\\n    'c'", [("a", "bc")]),
        ("a \\\n = 1", [("a", 1)]),
        ("a = []", [("a", ())]),
        ("a = [ 'b', ]", [("a", ("b",))]),
        ("a = ['b','c'\n  'd', # e\n\n  1, [2, []]\n]", [("a", ("b", "cd", 1, (2, ())))]),
        ("a = [[[[1]]]]", [("a", ((((1,),),),))]),
        ("a = 1\na = 2", [("a", 1), ("a", 2)]),
        ("name = 'na\u00efve'", [("name", "na\u00efve")]),
    ],
)
def test_reads(text: str, settings: list[tuple[str, Any]]) -> None:
    assert read(text) == settings


def test_positions() -> None:
    first, second = read_settings("a = 1\n\tbc = [ 'd',\n 2]", source="f")
    assert (first.line, first.column, first.item) == (1, 1, Item(1, 1, 5))
    assert (second.line, second.column) == (2, 2)
    assert second.item == Item((Item("d", 2, 9), Item(2, 3, 2)), 2, 7)


@pytest.mark.parametrize(
    ("text", "line", "column", "reason"),
    [
        ("import os", 1, 8, "expected '=', found 'os'"),
        ("name = foo", 1, 8, "expected a value, found 'foo'"),
        ("name = 'vm%d' % 3", 1, 15, "expected the end of the line or ';', found '% 3'"),
        ("memory = 512 * 2", 1, 14, "expected the end of the line or ';'"),
        ("a = 1 b = 2", 1, 7, "expected the end of the line or ';'"),
        ("a = 'x\ny'", 1, 5, "expected a value"),
        ("a = 'x\\", 1, 5, "expected a value"),
        ("\n\n  a", 3, 4, "expected '=', found the end of the line"),
        ("a =\n1", 1, 4, "expected a value, found the end of the line"),
        ("a = [1, 2", 1, 10, "expected a value, ',' or ']'"),
        ("a = [1 2]", 1, 8, "expected a value, ',' or ']'"),
        ("a = [,]", 1, 6, "expected a value, ',' or ']'"),
        ("a = ['b\n']", 1, 6, "expected a value, ',' or ']'"),
        ("a = [[[[[1]]]]]", 1, 9, "expected a value, ',' or ']'"),
        ("a = 007", 1, 5, "expected a value"),
        ("a = 1k", 1, 5, "expected a value"),
        ("a = 1.2.3", 1, 5, "expected a value"),
        ("a = " + "9" * 19, 1, 5, "expected a value"),
        ("a = None", 1, 5, "expected a value"),
        ("a.b = 1", 1, 2, "expected '='"),
        ("(domain)", 1, 1, "expected key = value, found '(domain)'"),
        ("<xml>", 1, 1, "expected key = value"),
        (r"a = 'x\ud800'", 1, 7, r"\ud800 is not a character"),
        ("a = [" * 2000, 1, 6, "expected a value, ',' or ']'"),
    ],
)
def test_errors_have_a_place(text: str, line: int, column: int, reason: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(text)
    error = caught.value
    assert reason in error.reason
    assert (error.source, error.line, error.column) == ("f", line, column)
    assert "not executed" in error.hint


def test_a_file_that_is_too_long_is_refused() -> None:
    assert read("#" * MAX_CHARACTERS) == []
    with pytest.raises(ConfigError, match="more than 65536 characters"):
        read("#" * (MAX_CHARACTERS + 1))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", ""),
        ("512", "512"),
        ("0x10", "0x10"),
        ("web", "web"),
        ("console=ttyS0 quiet", "console=ttyS0 quiet"),
        (" a ", " a "),
        ('"web"', "web"),
        (" 'a' 'b' ", "ab"),
        ("['a', 'b']", ("a", "b")),
        ("[]", ()),
    ],
)
def test_values_on_a_command_line(text: str, value: Any) -> None:
    assert plain(read_value(text, source="s")) == value


@pytest.mark.parametrize("text", ["[phy:/dev/x,xvda,w]", "'a", "'a' b", "['a'"])
def test_what_begins_like_a_value_must_be_one(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^s: expected "):
        read_value(text, source="s")


@given(st.text(st.sampled_from("ab=1'\"[],;#\\ \n\t0x.-")) | st.text())
def test_any_text_is_settings_or_a_config_error(text: str) -> None:
    with contextlib.suppress(ConfigError):
        read(text)
    with contextlib.suppress(ConfigError):
        read_value(text, source="s")


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"])))
def test_any_string_can_be_written(text: str) -> None:
    quoted = "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
    assert read(f"a = {quoted}") == [("a", text)]
