"""Names of taps: within the kernel's limit, one daemon's never another's."""

from __future__ import annotations

from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relocd.domain.rules import MAX_VIFS
from relocd.net.names import instance_tag, tap_mac, tap_name, tap_prefix

IFNAMSIZ = 16


@given(run_dir=st.text(), uuid=st.uuids(), index=st.integers(0, MAX_VIFS - 1))
def test_names_fit_and_begin_with_the_prefix(run_dir: str, uuid: UUID, index: int) -> None:
    tag = instance_tag(run_dir)
    name = tap_name(tag, uuid, index)
    assert len(name) == IFNAMSIZ - 1
    assert name.startswith(tap_prefix(tag))
    assert name.isascii()
    assert name.isalnum()


def test_two_daemons_on_one_machine_differ() -> None:
    uuid = uuid4()
    assert tap_name(instance_tag("/run/a"), uuid, 0) != tap_name(instance_tag("/run/b"), uuid, 0)


def test_the_interfaces_of_a_domain_differ() -> None:
    uuid = uuid4()
    assert len({tap_name("abcd", uuid, index) for index in range(MAX_VIFS)}) == MAX_VIFS


@pytest.mark.parametrize("index", [-1, MAX_VIFS])
def test_no_more_interfaces_than_a_domain_can_have(index: int) -> None:
    with pytest.raises(ValueError, match="at most"):
        tap_name("abcd", uuid4(), index)


def test_the_taps_own_address_is_high() -> None:
    assert tap_mac("00:16:3E:01:02:03") == "fe:16:3e:01:02:03"
