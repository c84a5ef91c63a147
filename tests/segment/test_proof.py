"""What a probe means."""

from __future__ import annotations

import pytest
from attrs import evolve

from relocd.segment.proof import BridgeEnd, Crossing, EndState, Proof, prove, strangers

HERE = BridgeEnd("xenbr0", EndState.READY, "aa", ("10.0.0.0/24",))
THERE = evolve(HERE, identity="bb")


@pytest.mark.parametrize(
    ("seen", "heard", "proof"),
    [
        (True, True, Proof.PROVEN),
        (True, False, Proof.ONE_WAY),
        (False, False, Proof.SILENT),
        (False, True, Proof.SILENT),
    ],
)
def test_a_frame_must_go_there_and_another_come_back(seen: bool, heard: bool, proof: Proof) -> None:
    assert prove(HERE, THERE, seen=seen, heard=heard) is proof
    assert Crossing(HERE, THERE, proof).adjacent is (proof is Proof.PROVEN)


def test_one_bridge_needs_no_probe_and_unknown_ones_are_not_one() -> None:
    assert prove(HERE, HERE, seen=False, heard=False) is Proof.SAME
    nameless = evolve(HERE, identity="")
    assert prove(nameless, nameless, seen=False, heard=False) is Proof.SILENT


@pytest.mark.parametrize("state", [EndState.ABSENT, EndState.DOWN, EndState.UNABLE])
def test_an_end_that_cannot_be_probed_proves_nothing(state: EndState) -> None:
    for ends in ((evolve(HERE, state=state), THERE), (HERE, evolve(THERE, state=state))):
        assert prove(*ends, seen=False, heard=False) is Proof.UNTRIED


@pytest.mark.parametrize(
    ("source", "target", "apart"),
    [
        (["10.0.0.0/24"], ["10.0.0.0/24"], False),
        (["10.0.0.0/24"], ["10.0.1.0/24"], True),
        (["10.0.0.0/16"], ["10.0.1.0/24"], False),
        (["10.0.0.0/24", "10.9.0.0/24"], ["10.9.0.0/24"], False),
        ([], ["10.0.1.0/24"], False),
        (["2001:db8::/64"], ["10.0.1.0/24"], False),
        (["2001:db8::/64", "10.0.1.0/24"], ["10.0.1.0/24", "2001:db8:1::/64"], False),
        (["fe80::/64", "10.0.0.0/24"], ["fe80::/64", "10.0.1.0/24"], True),
    ],
)
def test_addresses_only_tell_bridges_apart_if_both_have_some(
    source: list[str], target: list[str], apart: bool
) -> None:
    assert strangers(source, target) is apart
    assert strangers(target, source) is apart
