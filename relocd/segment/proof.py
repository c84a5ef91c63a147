"""What is known of the two ends of a bridge by the same name, and what a probe between them says."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, ip_network

from attrs import frozen

Subnet = IPv4Network | IPv6Network


class EndState(enum.StrEnum):
    """Can a host send and see probes on its bridge?"""

    READY = "ready"
    ABSENT = "absent"  # there is no bridge of that name
    DOWN = "down"
    UNABLE = "unable"  # the host may not open packet sockets, or they fail


class Proof(enum.StrEnum):
    """What a probe between two bridges says."""

    PROVEN = "proven"  # a frame went there, and one came back
    SAME = "same"  # it is one and the same bridge
    ONE_WAY = "one-way"  # the target saw the source's frames; its own do not come back
    SILENT = "silent"  # no frame came through
    UNTRIED = "untried"  # one of the ends could not be probed


@frozen
class BridgeEnd:
    """A bridge as its host sees it.

    ``identity`` is the same for two that are one (host, namespace and device), and empty where it is not known.
    ``subnets`` are those of the bridge's own addresses, if it has any; ``text`` says why it cannot be probed.
    """

    name: str
    state: EndState
    identity: str = ""
    subnets: tuple[str, ...] = ()
    text: str = ""


@frozen
class Crossing:
    """One bridge of a domain on both hosts, and what the probe between them says."""

    source: BridgeEnd
    target: BridgeEnd
    proof: Proof

    @property
    def name(self) -> str:
        return self.source.name

    @property
    def adjacent(self) -> bool:
        """Is it proven that what is connected here is reached there, and back?"""
        return self.proof in (Proof.PROVEN, Proof.SAME)


def same_bridge(source: BridgeEnd, target: BridgeEnd) -> bool:
    """Do both mean one device of one host? A frame sent there does not come back to its own host."""
    return bool(source.identity) and source.identity == target.identity


def prove(source: BridgeEnd, target: BridgeEnd, *, seen: bool, heard: bool) -> Proof:
    """Judge: the target saw the source's frames, the source heard the target's answers."""
    if same_bridge(source, target):
        return Proof.SAME
    if source.state is not EndState.READY or target.state is not EndState.READY:
        return Proof.UNTRIED
    if seen:
        return Proof.PROVEN if heard else Proof.ONE_WAY
    return Proof.SILENT  # an answer to what was never seen proves nothing


def strangers(source: Iterable[str], target: Iterable[str]) -> bool:
    """Have both ends addresses, of one family at least, and no subnet in common?"""
    ours, theirs = _networks(source), _networks(target)
    pairs = [(one, other) for one in ours for other in theirs if one.version == other.version]
    return bool(pairs) and not any(one.overlaps(other) for one, other in pairs)


def _networks(texts: Iterable[str]) -> list[Subnet]:
    networks = [ip_network(text, strict=False) for text in texts]
    return [network for network in networks if not network.is_link_local]
