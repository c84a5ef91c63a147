"""Who needs a tunnel, what it is called, and its record."""

from __future__ import annotations

import contextlib
from uuid import UUID

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from relocd.errors import ConfigError
from relocd.net.names import instance_tag, tap_prefix
from relocd.segment.tunnel import (
    VNI_MAX,
    VNI_TRIES,
    Tunnel,
    device_mac,
    device_name,
    device_prefix,
    from_text,
    to_text,
    vni_candidates,
)

A, B, C = "192.0.2.1", "192.0.2.2", "192.0.2.3"
WEB, MAIL = UUID(int=1), UUID(int=2)
AT_A = Tunnel(7, "xenbr0", A, B, 4789, 8002)
AT_B = evolve(AT_A, local=B, remote=A)
NONE: frozenset[UUID] = frozenset()

uuids = st.frozensets(st.uuids(), max_size=4)
tunnels = st.builds(
    Tunnel,
    st.integers(1, VNI_MAX),
    st.from_regex(r"[A-Za-z0-9_.-]{1,15}", fullmatch=True),
    st.ip_addresses().map(str),
    st.ip_addresses().map(str),
    st.integers(1, 65535),
    st.integers(0, 65535),
    uuids,
    uuids,
    uuids,
)


def test_a_domain_needs_it_where_it_is_a_guest_and_only_while_it_lives_there() -> None:
    here, there = AT_A.going(WEB, B), AT_B.coming(WEB, A)
    assert here.needed(frozenset({WEB}))  # while it moves
    assert not here.settled(NONE, NONE).needed(NONE)  # from then on the other end says so
    assert there.settled(frozenset({WEB}), NONE).needed(NONE)
    assert not there.settled(NONE, NONE).needed(NONE)  # destroyed, or never arrived


def test_a_domain_that_is_home_again_does_not_need_it() -> None:
    here, there = AT_A.going(WEB, B), AT_B.coming(WEB, A)
    there, here = there.going(WEB, A), here.coming(WEB, B)
    assert there.needed(frozenset({WEB}))
    assert not there.settled(NONE, NONE).needed(NONE)
    assert not here.settled(frozenset({WEB}), NONE).needed(NONE)


def test_one_that_was_sent_on_keeps_it_until_it_comes_back() -> None:
    there = AT_B.coming(WEB, A).settled(frozenset({WEB}), NONE).going(WEB, C)
    assert there.settled(NONE, frozenset({WEB})).needed(NONE)
    gone = there.settled(NONE, NONE)
    assert gone.needed(NONE)
    back = gone.coming(WEB, C).settled(frozenset({WEB}), NONE)
    assert back.needed(NONE)  # it is a guest here again
    assert not back.going(WEB, A).settled(NONE, NONE).needed(NONE)


def test_one_that_was_to_be_sent_on_and_stayed_is_forgotten() -> None:
    tried = AT_A.going(WEB, C)
    assert tried.settled(frozenset({WEB}), frozenset({WEB})).needed(NONE)
    assert not tried.settled(frozenset({WEB}), NONE).needed(NONE)


def test_one_of_two_guests_is_enough() -> None:
    there = AT_B.coming(WEB, A).coming(MAIL, A)
    assert there.settled(frozenset({MAIL}), NONE).needed(NONE)
    assert there.settled(frozenset({MAIL}), NONE).guests == {MAIL}


@given(st.ip_addresses().map(str), st.ip_addresses().map(str), st.sampled_from(["xenbr0", "dmz"]))
def test_both_hosts_try_the_same_numbers(one: str, other: str, bridge: str) -> None:
    numbers = list(vni_candidates(one, other, bridge))
    assert numbers == list(vni_candidates(other, one, bridge))
    assert len(numbers) == VNI_TRIES
    assert all(0 < number <= VNI_MAX for number in numbers)
    assert numbers != list(vni_candidates(one, other, "another"))


@given(st.integers(1, VNI_MAX))
def test_a_device_has_a_name_that_fits_and_is_no_tap(vni: int) -> None:
    tag = instance_tag("/run/relocd")
    name = device_name(tag, vni)
    assert len(name) <= 15
    assert name.startswith(device_prefix(tag))
    assert not name.startswith(tap_prefix(tag))
    assert int(device_mac(vni).replace(":", ""), 16) & VNI_MAX == vni
    assert device_mac(vni).startswith("fe:")


@given(tunnels)
def test_a_record_is_read_as_it_was_written(tunnel: Tunnel) -> None:
    assert from_text(to_text(tunnel), source="f") == tunnel


@given(tunnels, st.data())
def test_a_damaged_record_is_another_record_or_an_error(tunnel: Tunnel, data: st.DataObject) -> None:
    text = to_text(tunnel)
    at = data.draw(st.integers(0, len(text) - 1))
    with contextlib.suppress(ConfigError, ValueError):
        from_text(
            text[:at] + data.draw(st.sampled_from(["", "x", "(", ")", " "])) + text[at + 1 :], source="f"
        )


@pytest.mark.parametrize(
    "change", [("(vni 7)", ""), ("(vni 7)", "(vni 0)"), ("version 1", "version 2"), ("xenbr0", "a/b")]
)
def test_what_is_no_record_is_an_error(change: tuple[str, str]) -> None:
    with pytest.raises(ValueError, match=r"missing|cannot be|version"):
        from_text(to_text(AT_A).replace(*change), source="f")
