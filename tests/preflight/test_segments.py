"""One segment or two, as preflight says it."""

from __future__ import annotations

import pytest
from attrs import evolve

from relocd.config.model import L2Mode
from relocd.preflight.facts import SegmentFacts
from relocd.preflight.result import Verdict
from relocd.preflight.segments import agreed_mode, judge_segment
from relocd.segment.proof import BridgeEnd, Crossing, EndState, Proof

R, W, T = L2Mode.REQUIRE, L2Mode.WARN, L2Mode.TUNNEL
HERE = BridgeEnd("xenbr0", EndState.READY, "aa", ("10.1.0.0/24",))
THERE = BridgeEnd("xenbr0", EndState.READY, "bb", ("10.2.0.0/24",))
DOWN = evolve(THERE, state=EndState.DOWN, text="xenbr0 is down")
UNABLE = evolve(THERE, state=EndState.UNABLE, text="relocd may not open packet sockets")


def judge(crossing: Crossing, mode: L2Mode = R) -> tuple[Verdict, str, str]:
    facts = SegmentFacts(mode, "hosta", "192.0.2.1", "192.0.2.2", {"xenbr0": crossing})
    return judge_segment("hostb", "xenbr0", facts)


@pytest.mark.parametrize(
    ("one", "other", "agreed"),
    [(R, R, R), (W, W, W), (T, T, T), (R, W, R), (R, T, R), (W, T, W)],
)
def test_the_stricter_host_decides(one: L2Mode, other: L2Mode, agreed: L2Mode) -> None:
    assert agreed_mode(one, other) is agreed_mode(other, one) is agreed


def test_two_segments_are_refused_with_both_subnets_and_the_tunnel_to_set_up() -> None:
    verdict, text, remedy = judge(Crossing(HERE, THERE, Proof.SILENT))
    assert verdict is Verdict.FAIL
    assert "xenbr0 on hosta (10.1.0.0/24)" in text
    assert "xenbr0 on hostb (10.2.0.0/24)" in text
    assert "type vxlan" in remedy
    assert "local 192.0.2.1 remote 192.0.2.2" in remedy
    assert "xen-relocation-l2 tunnel" in remedy


def test_a_way_that_leads_there_and_not_back_says_which() -> None:
    verdict, text, _ = judge(Crossing(HERE, THERE, Proof.ONE_WAY))
    assert verdict is Verdict.FAIL
    assert "those of hostb do not" in text


@pytest.mark.parametrize("mode", L2Mode)
@pytest.mark.parametrize(
    "crossing", [Crossing(HERE, THERE, Proof.SILENT), Crossing(HERE, DOWN, Proof.UNTRIED)]
)
def test_only_warn_lets_it_go_on(mode: L2Mode, crossing: Crossing) -> None:
    verdict, _, remedy = judge(crossing, mode)
    assert verdict is (Verdict.WARN if mode is W else Verdict.FAIL)
    assert remedy


def test_a_proof_counts_more_than_addresses() -> None:
    verdict, text, _ = judge(Crossing(HERE, THERE, Proof.PROVEN))
    assert verdict is Verdict.PASS
    assert "different subnets" in text
    assert "different" not in judge(Crossing(HERE, HERE, Proof.PROVEN))[1]
    bare = evolve(HERE, subnets=())
    assert judge(Crossing(bare, bare, Proof.PROVEN))[0] is Verdict.PASS
    assert judge(Crossing(HERE, HERE, Proof.SAME))[0] is Verdict.PASS


def test_where_nothing_can_be_sent_addresses_decide() -> None:
    verdict, text, remedy = judge(Crossing(HERE, UNABLE, Proof.UNTRIED))
    assert verdict is Verdict.FAIL
    assert "no subnet in common" in text
    assert "type vxlan" in remedy
    verdict, text, remedy = judge(Crossing(HERE, evolve(UNABLE, subnets=HERE.subnets), Proof.UNTRIED))
    assert verdict is Verdict.WARN
    assert UNABLE.text in text
    assert "CAP_NET_RAW" in remedy


def test_a_bridge_that_the_probe_did_not_name_is_a_warning() -> None:
    facts = SegmentFacts(R, "hosta", "192.0.2.1", "192.0.2.2")
    assert judge_segment("hostb", "xenbr0", facts)[0] is Verdict.WARN
