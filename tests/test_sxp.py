"""The S-expression reader and writer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relocd.errors import ConfigError
from relocd.sxp import Atom, Limits, SList, Value, dumps, error_at, parse, parse_one, pretty

characters = st.characters(exclude_categories=["Cs"])
words = st.text(characters)
syntax = st.text(st.sampled_from("()'\"\\# \n\t;{}<>[]abx01\x00\x7fé\u2028"))
trees: st.SearchStrategy[Value] = st.recursive(
    words | syntax, lambda children: st.lists(children).map(tuple), max_leaves=30
)
UNLIMITED = Limits(size_bytes=10**7, depth=10**6, items=10**6)


def fails(text: str, limits: Limits = UNLIMITED) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        parse(text, source="f", limits=limits)
    return caught.value


# -- what is read ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("", ()),
        (" \t\n\v\f\r", ()),
        ("# only a comment", ()),
        ("receive\n", ("receive",)),
        ("(receive)", (("receive",),)),
        ("()", ((),)),
        ("( ( ) ())", (((), ()),)),
        ("(a b)(c)", (("a", "b"), ("c",))),
        ("'x'y", ("x", "y")),
        ("'x''y'\"z\"", ("x", "y", "z")),
        ("(a 'b c' \"d e\")", (("a", "b c", "d e"),)),
        ("('')", (("",),)),
        ("b#c\nd", ("b", "d")),
        ("(a # it's (not \"read\nb)", (("a", "b"),)),
        ("'a # b'", ("a # b",)),
        ("'one\ntwo'", ("one\ntwo",)),
        ("b'c'd", ("b'c'd",)),
        (r"a\b", (r"a\b",)),
        ("^localhost$", ("^localhost$",)),
        ("a{b}c;d[e]<f>", ("a", "{b", "}c", ";d", "[e", "]", "<f", ">")),
        ("(a!b)", (("a!b",),)),
        ("'na\u00efve \u20ac'", ("na\u00efve \u20ac",)),
        ("(kernel )", (("kernel",),)),
    ],
)
def test_reads(text: str, tree: object) -> None:
    assert parse(text) == tree


@pytest.mark.parametrize(
    ("escape", "text"),
    [
        (r"\a", "\a"),
        (r"\b", "\b"),
        (r"\t", "\t"),
        (r"\n", "\n"),
        (r"\v", "\v"),
        (r"\f", "\f"),
        (r"\r", "\r"),
        (r"\\", "\\"),
        (r"\'", "'"),
        (r"\"", '"'),
        (r"\0", "\0"),
        (r"\7x", "\7x"),
        (r"\12", "\n"),
        (r"\101", "A"),
        (r"\1011", "A1"),
        (r"\377", "\xff"),
        (r"\400", " 0"),
        (r"\x41", "A"),
        (r"\x4g", "\4g"),
        (r"\x414", "A4"),
        (r"\u20ac", "\u20ac"),
        (r"\U0001F600", "\U0001f600"),
        (r"\.", r"\."),
        (r"\d+\.\d+", r"\d+\.\d+"),
        (r"\\.", r"\."),
        (r"\xg", r"\xg"),
        (r"\u20a", r"\u20a"),
        ("\\\n", "\\\n"),
        (r"\(", r"\("),
    ],
)
@pytest.mark.parametrize("quote", ["'", '"'])
def test_escapes(escape: str, text: str, quote: str) -> None:
    assert parse_one(f"{quote}{escape}{quote}") == text


def test_unknown_escape_keeps_a_pattern_whole() -> None:
    assert parse_one(r"'^.*\.example\.org$'") == r"^.*\.example\.org$"


# -- where it was --------------------------------------------------------------------------------------


def test_positions() -> None:
    tree = parse("a (b\n  'c\nd' # x\n\te)  f")
    found = [(n.line, n.column) for n in tree]
    assert isinstance(tree[1], SList)
    found += [(n.line, n.column) for n in tree[1]]
    assert found == [(1, 1), (1, 3), (4, 6), (1, 4), (2, 3), (4, 2)]


def test_quoted_is_known() -> None:
    assert [n.quoted for n in parse("a 'b' \"c\"") if isinstance(n, Atom)] == [False, True, True]


def test_nodes_equal_plain_values_and_hash_alike() -> None:
    node = parse_one("(a (b))")
    assert node == ("a", ("b",))
    assert hash(node) == hash(("a", ("b",)))
    assert "a" in {Atom("a")}


def test_error_at_points_at_the_node() -> None:
    node = parse("a\n  b")[1]
    assert str(error_at(node, "odd", source="f")) == "f:2:3: odd"


# -- what is refused -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "line", "column", "reason"),
    [
        (")", 1, 1, "')' without"),
        ("(a)\n )", 2, 2, "')' without"),
        ("(a\n (b", 2, 2, "never closed"),
        ("(a (b) ", 1, 1, "never closed"),
        ("(a", 1, 1, "never closed"),
        ("a 'b", 1, 3, "this string is never closed: no ' follows"),
        ("# c\n \"b'", 2, 2, 'this string is never closed: no " follows'),
        ("'b\\'", 1, 1, "never closed"),
        ("a \x00", 1, 3, "U+0000"),
        ("a\x7f", 1, 2, "U+007F"),
        ("a\n\u00a0b", 2, 1, "U+00A0"),
        ("caf\u00e9", 1, 4, "U+00E9"),
        (r"('x\ud800')", 1, 4, r"\ud800 is not a character"),
        (r"'\U00110000'", 1, 2, "not a character"),
        ("'a\ud800'", 1, 3, "UTF-8"),
    ],
)
def test_errors_have_a_place(text: str, line: int, column: int, reason: str) -> None:
    error = fails(text)
    assert (error.source, error.line, error.column) == ("f", line, column)
    assert reason in error.reason


def test_one_value_means_one() -> None:
    assert parse_one(" a # b") == "a"
    with pytest.raises(ConfigError, match=r"^f:1:1: there is no value"):
        parse_one(" # b", source="f")
    with pytest.raises(ConfigError, match=r"^f:2:1: unexpected second value"):
        parse_one("a\nb", source="f")


# -- limits --------------------------------------------------------------------------------------------


def test_size_limit_counts_bytes() -> None:
    assert parse("'\u20ac'", limits=Limits(size_bytes=5)) == ("\u20ac",)
    assert "longer than 4 bytes" in fails("'\u20ac'", Limits(size_bytes=4)).reason
    assert "longer than 65536 bytes" in fails("a" * 65537, Limits()).reason


def test_depth_limit() -> None:
    assert parse("(" * 32 + ")" * 32)
    error = fails("(" * 33, Limits())
    assert (error.column, error.reason) == (33, "lists are nested more than 32 deep")


@pytest.mark.parametrize("item", ["a ", "() ", "'' "])
def test_item_limit(item: str) -> None:
    assert len(parse(item * 5, limits=Limits(items=5))) == 5
    error = fails(item * 6, Limits(items=5))
    assert error.reason == "more than 5 values"
    assert error.line == 1


def test_depth_costs_no_stack() -> None:
    deep = "(" * 100_000 + ")" * 100_000
    assert dumps(parse_one(deep, limits=UNLIMITED)) == deep


def test_a_full_message_is_accepted() -> None:
    assert len(parse("abcde " * 10000, limits=Limits())) == 10000


# -- what is written -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ((), "()"),
        (("a", ["b", ()], "c"), "(a (b ()) c)"),
        ("", "''"),
        ("a b", "'a b'"),
        ("it's", '"it\'s"'),
        ("'\"", "'\\'\"'"),
        ("a\nb\r\t", r"'a\nb\r\t'"),
        ("\\.", r"'\\.'"),
        ("#", "'#'"),
        ("\x00\x9f\u2028\U000e0001", r"'\x00\x9f\u2028\U000e0001'"),
        ("é", "'é'"),
        ("/var/lib/x-1.2~3:y@z", "/var/lib/x-1.2~3:y@z"),
        (True, "yes"),
        (False, "no"),
        (None, "none"),
        (-12, "-12"),
        (0.25, "0.25"),
        ("file\udcff", "'file\ufffd'"),
    ],
)
def test_writes(value: Value, text: str) -> None:
    assert dumps(value) == text


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_no_number_is_not_written(number: float) -> None:
    with pytest.raises(ValueError, match="cannot be written"):
        dumps(("a", number))


@pytest.mark.parametrize("value", [b"a", object(), {"a": 1}])
def test_unknown_types_are_not_written(value: object) -> None:
    with pytest.raises(TypeError, match="cannot be written"):
        dumps(("a", value))  # type: ignore[arg-type]  # what the test is about


def test_pretty_breaks_wide_lists() -> None:
    value = ("domain", ("name", "web"), ("device", ("vif", ("mac", "00:16:3e:00:00:01"))), "x")
    assert pretty(value) == dumps(value)
    assert pretty(value, width=40) == (
        "(domain\n    (name web)\n    (device\n        (vif (mac 00:16:3e:00:00:01))\n    )\n    x\n)"
    )


def test_pretty_keeps_a_wide_list_of_words_in_one_line() -> None:
    assert pretty(("a", "b" * 100)) == "(a " + "b" * 100 + ")"


# -- laws ----------------------------------------------------------------------------------------------


@given(trees)
def test_what_is_written_reads_back(tree: Value) -> None:
    text = dumps(tree)
    assert text.isprintable()
    assert parse_one(text, limits=UNLIMITED) == tree


@given(trees, st.integers(1, 100))
def test_pretty_reads_back(tree: Value, width: int) -> None:
    assert parse_one(pretty(tree, width=width), limits=UNLIMITED) == tree


@given(words | syntax)
def test_any_text_is_a_tree_or_a_config_error(text: str) -> None:
    try:
        tree = parse(text)
    except ConfigError as caught:
        error = caught
    else:
        assert parse(" ".join(map(dumps, tree))) == tree
        return
    assert 1 <= error.line <= text.count("\n") + 1
    assert 1 <= error.column <= len(text) + 1


@given(st.lists(trees, max_size=4))
def test_each_node_begins_where_it_says(values: list[Value]) -> None:
    text = "\n".join(map(dumps, values))
    for number, node in enumerate(parse(text, limits=UNLIMITED), 1):
        assert (node.line, node.column) == (number, 1)
