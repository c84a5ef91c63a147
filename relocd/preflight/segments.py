"""Judges whether a bridge is the same network segment on both hosts: a probe proves it, addresses only hint at it."""

from __future__ import annotations

from relocd.config.model import L2Mode
from relocd.preflight.facts import SegmentFacts
from relocd.preflight.result import Verdict
from relocd.segment.proof import BridgeEnd, Crossing, EndState, Proof, strangers

_STRICT = (L2Mode.REQUIRE, L2Mode.WARN, L2Mode.TUNNEL)


def agreed_mode(one: L2Mode, other: L2Mode) -> L2Mode:
    """What two hosts do: the stricter one's way. A tunnel has two ends, so both must want it."""
    return min(one, other, key=_STRICT.index)


def unproven(host: str) -> tuple[str, str]:
    """Text and remedy for two hosts of which one does not know the probe."""
    return (
        f"whether the domain's bridges are the same network segment on {host} was not tried: one of the hosts runs "
        "an older relocd",
        "Make sure that they are, or upgrade the older host.",
    )


def judge_segment(host: str, bridge: str, facts: SegmentFacts) -> tuple[Verdict, str, str]:
    """One bridge; ``host`` is the target."""
    crossing = facts.crossings.get(bridge)
    if crossing is None:
        return (Verdict.WARN, *unproven(host))
    if crossing.proof is Proof.SAME:
        return Verdict.PASS, f"{bridge} is the very same bridge", ""
    here, there = _told(crossing.source, facts.source_host), _told(crossing.target, host)
    ends = f"{here} and {there}"
    if crossing.proof is Proof.PROVEN:
        differ = strangers(crossing.source.subnets, crossing.target.subnets)
        note = ", though their addresses are of different subnets" if differ else ""
        return Verdict.PASS, f"a probe went from {here} to {there}, and back{note}", ""
    stopped = Verdict.WARN if facts.mode is L2Mode.WARN else Verdict.FAIL
    if crossing.proof is Proof.UNTRIED:
        return _untried(crossing, ends, stopped, _remedy(bridge, host, facts))
    what = {
        Proof.SILENT: "no probe frame comes through",
        Proof.ONE_WAY: f"probe frames of {facts.source_host} come through, those of {host} do not",
    }[crossing.proof]
    text = f"{ends} are not the same network segment: {what}"
    if facts.mode is L2Mode.TUNNEL and facts.asks_only:
        return Verdict.PASS, f"{text}; a relocation joins them by a tunnel", ""
    if facts.tunnel_trouble:
        text += f"; they could not be joined: {facts.tunnel_trouble}"
    return stopped, text, _remedy(bridge, host, facts)


def _untried(crossing: Crossing, ends: str, stopped: Verdict, remedy: str) -> tuple[Verdict, str, str]:
    """A bridge that is down serves nobody. Where nothing can be sent, addresses are all there is to go by."""
    why = "; ".join(end.text for end in (crossing.source, crossing.target) if end.state is not EndState.READY)
    down = EndState.DOWN in (crossing.source.state, crossing.target.state)
    if down:
        return (
            stopped,
            f"{ends} cannot be the same network segment now: {why}",
            f"ip link set {crossing.name} up",
        )
    if strangers(crossing.source.subnets, crossing.target.subnets):
        text = f"{ends} have no subnet in common, and no probe could be sent ({why})"
        return stopped, text, remedy
    absent = EndState.ABSENT in (crossing.source.state, crossing.target.state)
    return (
        Verdict.WARN,
        f"whether {ends} are the same network segment could not be tried: {why}",
        "Make sure that they are." if absent else "relocd needs CAP_NET_RAW on both hosts to try it.",
    )


def _told(end: BridgeEnd, host: str) -> str:
    subnets = ", ".join(end.subnets) or "no address"
    return f"{end.name} on {host} ({subnets})"


def _remedy(bridge: str, host: str, facts: SegmentFacts) -> str:
    here, there = facts.source_address, facts.target_address
    return (
        f"Connect both bridges to the same VLAN, or join them with a tunnel: on {facts.source_host} 'ip link add "
        f"vx0 master {bridge} up type vxlan id 42 dstport 4789 local {here} remote {there}', on {host} "
        f"the same with local {there} remote {here}. With xen-relocation-l2 tunnel on both hosts relocd "
        "does that itself."
    )
