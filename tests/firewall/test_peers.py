"""Patterns as addresses: never less than the allow-list lets in, and no more where that is said to be exact."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relocd.allow import AllowList
from relocd.errors import ConfigError
from relocd.firewall.language import NotRegularError, language_of
from relocd.firewall.peers import MAX_NETWORKS, reach_of
from relocd.firewall.report import examine, networks_of
from relocd.firewall.ruleset import Outcome


@pytest.mark.parametrize(
    ("pattern", "networks"),
    [
        (r"10\.0\.0\.1", "10.0.0.1/32"),
        (r"^10\.0\.0\.1$", "10.0.0.1/32"),
        ("10.0.0.1", "10.0.0.1/32"),
        (r"^(10\.0\.0\.1|10\.0\.0\.3)$", "10.0.0.1/32 10.0.0.3/32"),
        (r"^10\.0\.0\.[23]$", "10.0.0.2/31"),
        (r"^10\.0\.0\..*$", "10.0.0.0/24"),
        (r"10\.0\..*", "10.0.0.0/16"),
        (r"10\..+", "10.0.0.0/8"),
        ("192.168.*", "192.168.0.0/16"),
        (r"^192\.0\.2\.[0-9]+$", "192.0.2.0/24"),
        (r"^192\.0\.2\.1[0-9]$", "192.0.2.10/31 192.0.2.12/30 192.0.2.16/30"),
        (r"10\.(1|2)\.\d+\.\d+", "10.1.0.0/16 10.2.0.0/16"),
        (r"\d+\.\d+\.\d+\.\d+", "0.0.0.0/0"),
        ("[0-9.]+", "0.0.0.0/0"),
        (r"2001:DB8::1", "2001:db8::1/128"),
        (r"2001:db8:.*", "2001:db8::/32"),
        (r"^fe80:.*$", "fe80::/16"),
        ("fe80::1%eth0", "fe80::1/128"),
        ("::ffff:a00:1", "10.0.0.1/32"),
        ("::1", "::1/128"),
    ],
)
def test_addresses(pattern: str, networks: str) -> None:
    reach = reach_of(pattern)
    assert [str(network) for network in reach.networks] == networks.split()
    assert (reach.names, reach.everybody, reach.reason) == ((), False, "")


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        (r"^localhost$", "localhost"),
        (r"^hosta\.example\.org$", "hosta.example.org"),
        (r"HOST[ab]\.example\.org", "hosta.example.org hostb.example.org"),
        (r"(www\.)?(a|b)\.example", "a.example b.example www.a.example www.b.example"),
    ],
)
def test_names(pattern: str, names: str) -> None:
    reach = reach_of(pattern)
    assert reach.names == tuple(names.split())
    assert not reach.everybody


@pytest.mark.parametrize("pattern", [".*", ".+", "^.*$", "(.*)", "..*", "[^!]*"])
def test_everybody_is_meant(pattern: str) -> None:
    reach = reach_of(pattern)
    assert reach.everybody
    assert not reach.reason


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        (r".*\.example\.org", "cannot be listed"),
        (r"[a-z]+", "cannot be listed"),
        (r"[0-9].*", "cannot be listed"),
        (r"10.*", "cannot be listed"),
        (r"[0-9a-f:.]+", "cannot be listed"),
        (r"::.*", "cannot be listed"),
        (r"(?!10\.)1.*", "looks around"),
        (r"(a|b)\1", "refers back"),
        ("a*b*", "cannot be listed"),
        (r"[0-9]+\.[0-9]+\.7\.1", f"more than {MAX_NETWORKS}"),
    ],
)
def test_who_cannot_be_listed_stands_for_everybody(pattern: str, why: str) -> None:
    reach = reach_of(pattern)
    assert reach.everybody
    assert why in reach.reason


@pytest.mark.parametrize(
    "pattern", ["2001:0db8::1", r"10\.0\.0\.01", r"10\.0\.0\.300", "^$", r"a\.$^b", "@", "1"]
)
def test_nobody(pattern: str) -> None:
    reach = reach_of(pattern)
    assert not reach.everybody
    assert not reach.networks
    assert "matches no address" in reach.reason


octets = st.sampled_from(
    [
        "1",
        "10",
        "200",
        r"\d+",
        "[0-9]+",
        "[0-9]{1,3}",
        "1[0-9]",
        "(1|2)",
        "[1-3]?",
        "2.",
        "25[0-5]",
        "1?0",
        "(0|1)+?",
    ]
)
dots = st.sampled_from([r"\.", r"\.", r"\.", "."])
shaped = st.builds(
    lambda parts, gaps, tail, cut, ends: (
        ("^" if ends else "")
        + "".join(part + gap for part, gap in zip(parts[:cut], gaps, strict=False))
        + (tail if cut < 4 else parts[3])
        + ("$" if ends else "")
    ),
    st.lists(octets, min_size=4, max_size=4),
    st.lists(dots, min_size=3, max_size=3),
    st.sampled_from([".*", ".+", "[0-9.]+", r"(\d+\.?){1,3}", "1.*"]),
    st.integers(1, 3),
    st.booleans(),
)
pieces = st.lists(
    st.sampled_from(
        ["1", "0", "10", r"\.", ".", "a", "f", ":", "::", "*", "+", "?", "(", ")", "|", "[0-9]", "{2}", "$"]
    )
)
addresses = st.one_of(
    st.ip_addresses(),
    st.builds(
        lambda parts: IPv4Address(".".join(map(str, parts))),
        st.lists(st.sampled_from([0, 1, 2, 10, 12, 25, 200, 251, 255]), min_size=4, max_size=4),
    ),
    st.sampled_from(
        [IPv6Address("::1"), IPv6Address("::ffff:10.0.0.1"), IPv6Address("10::1"), IPv6Address("::10:0:1")]
    ),
)


@settings(max_examples=300)
@given(shaped | pieces.map("".join), st.lists(addresses, min_size=1, max_size=20))
def test_nobody_who_is_allowed_is_left_out(pattern: str, some: list[IPv4Address | IPv6Address]) -> None:
    try:
        allow = AllowList([pattern])
    except ConfigError:
        return
    reach = reach_of(pattern)
    if reach.everybody:
        return
    for address in some:
        plain = getattr(address, "ipv4_mapped", None) or address
        if plain.version == 6 and re.match("[0-9]+[.]", pattern.lstrip("^(")):
            continue
        within = any(plain in network for network in reach.networks)
        if allow.match_address(str(address)):
            assert within, (pattern, address)
        elif plain.version == 4 and plain is address:
            assert not within, (pattern, address)


words = st.lists(st.sampled_from([*"ab0.()|?*+^$", "[ab]", "{0,2}", "(?:"]))


@settings(max_examples=300)
@given(words.map("".join), st.text("ab0.", max_size=6))
def test_the_machine_matches_what_the_expression_matches(pattern: str, text: str) -> None:
    try:
        compiled = AllowList([pattern])._patterns[pattern]
        language = language_of(pattern)
    except (ConfigError, NotRegularError):
        return
    if text:
        assert language.accepts(language.step(language.start(), text)) == bool(compiled.fullmatch(text))
    listed = language.words(30)
    if listed is not None and text:
        assert (text in listed) == bool(compiled.fullmatch(text))


def test_what_was_not_looked_at_is_undecided() -> None:
    many = reach_of(r"1[0-9][0-9]\.0\.0\.1")
    (finding,) = examine([], 8002, [many], {})
    assert len(finding.networks) > 64
    assert finding.verdict.outcome is Outcome.UNDECIDED
    assert f"first 64 of {len(finding.networks)}" in finding.verdict.because
    (finding,) = examine([], 8002, [reach_of(r"10\.0\.0\.1")], {})
    assert finding.verdict.outcome is Outcome.OPEN


def test_names_are_added_and_this_host_itself_left_out() -> None:
    reach = reach_of(r"(hosta|10\.0\.0\.2|127\.0\.0\.1|localhost)")
    looked_up = {"hosta": ("10.0.0.3", "fe80::1%eth0", "::ffff:10.0.0.9"), "localhost": ("127.0.0.1", "::1")}
    found = [str(network) for network in networks_of(reach, looked_up)]
    assert found == ["10.0.0.2/31", "10.0.0.9/32", "fe80::1/128"]
    assert networks_of(reach_of("hostb"), looked_up) == ()
    assert len(networks_of(reach_of(".*"), {})) == 2
    assert ip_address("10.0.0.3") in networks_of(reach, looked_up)[0]
