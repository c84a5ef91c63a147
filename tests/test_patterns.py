"""Regular expressions that cannot take long."""

from __future__ import annotations

import contextlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relocd.errors import ConfigError
from relocd.patterns import MAX_PATTERN_CHARACTERS, compile_pattern, is_slow, looks_slow, reaches_end

OCTET = r"(25[0-5]|2[0-4]\d|[01]?\d\d?)"

FAST = [
    r"^localhost$",
    r".*",
    r"^host\d+\.rack\d+\.(lon|ams)\d*\.example\.org$",
    rf"({OCTET}\.){{3}}{OCTET}",
    r"(abc)+",
    r"([a-z])*x",
    r"(a+)?b",
    r"(?=a).*b.*c.*",
    r"a{0,4294967294}",
    r"(?:a|b)*",
    r"(a)?(?(1)b|c)",
    r"([a-z0-9-]+\.)+example\.org",
    r"[^.]+\.[^.]+\.\w*-\D*1x*y",
]
SLOW = [
    r"(a+)+",
    r"(a*)*b",
    r"(a|aa)+$",
    r"([a-z.]+\.)*example",
    r"([a-zA]+a)*b",
    r"(x+X)*b",
    r"([^\D]+7)*b",
    r"(\w+\.?)+",
    r"(a?){30}b",
    r"((a?){3}){9}",
    r".*.*.*.*x",
    r"(.*|x){2,}y",
    r"(?=(a+)+b)a",
    r"(a|b|ab){200,253}",
    r"(([b])+){1,3}(?>ax)",  # groups cost more than characters
    r"(?:(?:[ab]){5,}){1,3}.b",
    r"(?:[^b]+?){1,3}x",
]


@pytest.mark.parametrize("text", FAST)
def test_fast(text: str) -> None:
    assert compile_pattern(text).pattern == text


@pytest.mark.parametrize("text", SLOW)
def test_slow(text: str) -> None:
    with pytest.raises(ConfigError, match="could take very long") as caught:
        compile_pattern(text)
    assert "three" in caught.value.hint


@pytest.mark.parametrize("text", SLOW)
def test_without_a_parser_slow_ones_are_found_as_well(text: str) -> None:
    assert looks_slow(text)


@pytest.mark.parametrize("text", FAST[:3])
def test_without_a_parser_usual_ones_are_fast(text: str) -> None:
    assert not looks_slow(text)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("(a", "is not a regular expression"),
        ("*", "is not a regular expression"),
        ("a{99999999999}", "is not a regular expression"),
        ("(" * 127 + ")" * 127, None),
        ("a" * (MAX_PATTERN_CHARACTERS + 1), "is longer than"),
        ("\bhost", "control character"),
        ("a\nb", "control character"),
    ],
)
def test_what_is_no_pattern(text: str, why: str | None) -> None:
    if why is None:
        assert compile_pattern(text).fullmatch("")
        return
    with pytest.raises(ConfigError, match=why):
        compile_pattern(text)


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        (r"^localhost$", True),
        (r"localhost\Z", True),
        (r"^(a|b)$", True),
        (r"^(a$|b$)", True),
        (r"^a$|^b$", True),
        (r".*", True),
        (r"^10\..*", True),
        (r"^10\..+", True),
        (r"^localhost", False),
        (r"10.0.0.1", False),
        (r"^a|b$", False),
        (r"^10\.\d*", False),
        (r"^10\..{2,}", False),
        (r"^10\..?", False),
        (r"a\$", False),
        ("", False),
    ],
)
def test_reaches_end(text: str, whole: bool) -> None:
    assert reaches_end(text) is whole


pieces = st.lists(st.sampled_from(["a", "b", ".", "*", "+", "?", "(", ")", "|", "$", "^", "{2,}", "[ab]"]))


@given(pieces.map("".join), st.text("ab", max_size=12))
def test_what_reaches_the_end_means_the_same_as_with_xend(text: str, name: str) -> None:
    try:
        pattern = compile_pattern(text)
    except ConfigError:
        return
    if reaches_end(text):
        assert bool(pattern.match(name)) == bool(pattern.fullmatch(name))


@given(st.text() | pieces.map("".join))
def test_any_text_is_a_pattern_or_a_config_error(text: str) -> None:
    with contextlib.suppress(ConfigError):
        assert isinstance(compile_pattern(text), re.Pattern)
        assert not is_slow(text)
