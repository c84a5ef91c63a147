"""The allow-list."""

from __future__ import annotations

import pytest

from relocd.allow import AllowList, forms_of
from relocd.config import Config
from relocd.errors import ConfigError

TEN = r"^10\.0\.0\.\d+$"


def test_default_is_this_host_only() -> None:
    allowed = AllowList(Config().hosts_allow)
    assert allowed.match_name("localhost") == "^localhost$"
    assert allowed.match_name("localhost.localdomain") == r"^localhost\.localdomain$"
    assert allowed.match_name("localhost.evil.example") is None
    assert allowed.match_address("127.0.0.1") is None
    assert allowed.needs_names


def test_empty_is_nobody() -> None:
    allowed = AllowList(())
    assert allowed.is_empty
    assert not allowed.needs_names
    assert allowed.match_address("127.0.0.1") is None
    assert allowed.match_name("localhost") is None


def test_everyone_is_said_in_words() -> None:
    allowed = AllowList([".*"])
    assert not allowed.is_empty
    assert allowed.match_address("192.0.2.1") == ".*"
    assert allowed.match_address("2001:db8::1") == ".*"


@pytest.mark.parametrize(
    ("pattern", "address", "matches"),
    [
        (TEN, "10.0.0.7", True),
        (TEN, "10.0.0.7.1", False),
        (TEN, "110.0.0.7", False),
        (r"10\.0\.0\.1", "10.0.0.1", True),
        (r"10\.0\.0\.1", "10.0.0.100", False),
        (TEN, "::ffff:10.0.0.7", True),
        (TEN, "::ffff:a00:7", True),
        (r"::ffff:.*", "::ffff:10.0.0.7", True),
        (r"^fd00::1$", "fd00:0:0:0:0:0:0:1", True),
        (r"^fd00::1$", "FD00::1", True),
        (r"^FD00::A$", "fd00::a", True),
        (r"^fe80::1$", "fe80::1%eth0", False),
        (r"^fe80::1%eth0$", "fe80::1%eth0", True),
        (r".*", "no address", False),
        (r".*", "", False),
        (r".*", "10.0.0.7\n", False),
        (r".*", "fe80::1%" + "x" * 300, False),
    ],
)
def test_addresses(pattern: str, address: str, matches: bool) -> None:
    assert AllowList([pattern]).match_address(address) == (pattern if matches else None)


@pytest.mark.parametrize(
    ("pattern", "name", "matches"),
    [
        (r"^.*\.example\.org$", "a.example.org", True),
        (r"^.*\.example\.org$", "A.Example.ORG.", True),
        (r"^.*\.EXAMPLE\.org$", "a.example.org", True),
        (r"^.*\.example\.org$", "example.org", False),
        (r"^.*\.example\.org$", "a.example.org.evil", False),
        (r"^localhost", "localhost", True),
        (r"^localhost", "localhost.evil", False),
        (r"a|ab", "ab", True),
        (r".*", "", False),
        (r".*", ".", False),
        (r".*", "x" * 253, True),
        (r".*", "x" * 254, False),
        (TEN, "10.0.0.7", False),
        (r".*", "::1", False),
        (r".*", "a\n", False),
        (r"\w+", "na\u00efve", False),
    ],
)
def test_names(pattern: str, name: str, matches: bool) -> None:
    assert AllowList([pattern]).match_name(name) == (pattern if matches else None)


def test_the_first_pattern_that_matches_is_named() -> None:
    allowed = AllowList(["x", "10.*", TEN, "10.*"])
    assert allowed.patterns == ("x", "10.*", TEN)
    assert allowed.match_address("10.0.0.1") == "10.*"


@pytest.mark.parametrize(
    ("patterns", "needed"),
    [
        ([TEN], False),
        ([TEN, r"^(192\.0\.2|198\.51\.100)\.[0-9]{1,3}$"], False),
        ([TEN, "^hosta$"], True),
        ([r"10.0.0.1"], True),
        ([r"[^0-9]+"], True),
        ([r"[0-9a-f:]+"], True),
        ([r"[@-~]1"], True),
        ([r"\w\.1"], True),
        ([r"\S"], True),
        ([r"(?:1|x)"], True),
    ],
)
def test_names_are_needed_if_a_letter_can_match(patterns: list[str], needed: bool) -> None:
    assert AllowList(patterns).needs_names is needed


def test_a_wrong_pattern_is_named() -> None:
    with pytest.raises(ConfigError, match=r"the pattern '\(a' is not a regular expression"):
        AllowList(["fine", "(a"])


def test_many_slow_patterns_are_too_much_together() -> None:
    assert AllowList([".*a.*b.*c"]).patterns
    with pytest.raises(ConfigError, match="together"):
        AllowList([".*a.*b.*c", ".*a.*b.*d"])
    assert AllowList([rf".*\.rack{n}\.example\.org" for n in range(200)]).patterns


def test_a_decision_can_be_explained() -> None:
    allow = AllowList([r"10\.0\.0\.1", r"host.*", ".*"])
    subjects = [*forms_of("::ffff:10.0.0.1"), "hosta", "x" * 300]
    assert subjects[:2] == ["10.0.0.1", "::ffff:a00:1"]
    assert allow.matching(subjects) == {r"10\.0\.0\.1": "10.0.0.1", "host.*": "hosta", ".*": "10.0.0.1"}
    assert forms_of("hosta") == ()
