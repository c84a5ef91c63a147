"""Tunnels between two bridges: what they are called, who needs them, and their record on disk.

A record is what a host knows of its own end:

    (tunnel (version 1) (vni 4711) (bridge xenbr0) (local A) (remote B) (port 4789) (peer-port 8002)
            (home UUID ...) (guests UUID ...) (onward UUID ...))

``home`` are domains of this host's segment that have gone through it, ``guests`` those that came through it and whose
segment is at the other end, ``onward`` those that have been sent on from here to a third host, behind this one. A
domain needs the tunnel at the host where it is a guest; what has gone onward needs it until it comes back.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from ipaddress import ip_address
from typing import Final
from uuid import UUID

from attrs import evolve, frozen

from relocd.domain.rules import BRIDGE
from relocd.sxp import Node, SList, dumps, parse_one

VNI_MAX: Final = (1 << 24) - 1

#: Numbers that are tried before it is given up to find a free one.
VNI_TRIES: Final = 8

_HEAD: Final = "tunnel"
_VERSION: Final = "1"
_PREFIX: Final = "rv"


@frozen
class Tunnel:
    """One end. ``peer_port`` is where the other end's relocd answers questions, 0 if it does not listen."""

    vni: int
    bridge: str
    local: str
    remote: str
    port: int
    peer_port: int
    home: frozenset[UUID] = frozenset()
    guests: frozenset[UUID] = frozenset()
    onward: frozenset[UUID] = frozenset()

    def going(self, domain: UUID, remote: str) -> Tunnel:
        """A domain on this end's bridge is about to be sent to a host.

        One that goes elsewhere than to the other end may still be reached through here.
        """
        if remote != self.remote:
            return evolve(self, onward=self.onward | {domain})
        return self if domain in self.guests else evolve(self, home=self.home | {domain})

    def coming(self, domain: UUID, remote: str) -> Tunnel:
        """A domain is about to come to this end's bridge."""
        back = evolve(self, onward=self.onward - {domain})
        if remote != self.remote or domain in self.home:
            return back
        return evolve(back, guests=self.guests | {domain})

    def settled(self, living: AbstractSet[UUID], moving: AbstractSet[UUID]) -> Tunnel:
        """After a look at the domains of this host, and those that are being relocated."""
        here = living - moving
        onward = self.onward - here
        return evolve(self, guests=self.guests & (living | moving | onward), onward=onward)

    def needed(self, moving: AbstractSet[UUID]) -> bool:
        """Does a domain need it on this host's behalf? ``moving`` are those that are being relocated."""
        return bool(self.guests or self.onward or self.home & moving)


def device_prefix(tag: str) -> str:
    """What the devices of one daemon's tunnels begin with; ``tag`` is that of its taps (relocd.net.names)."""
    return _PREFIX + tag


def device_name(tag: str, vni: int) -> str:
    """Name of the device of one tunnel, 12 characters."""
    return f"{device_prefix(tag)}{vni:06x}"


def device_mac(vni: int) -> str:
    """Its address: ``fe`` keeps a bridge without a fixed address from taking it."""
    return f"fe:52:4c:{vni >> 16:02x}:{vni >> 8 & 0xFF:02x}:{vni & 0xFF:02x}"


def vni_candidates(one: str, other: str, bridge: str) -> Iterator[int]:
    """Numbers for a tunnel between two hosts: the same ones, in the same order, whoever asks."""
    low, high = sorted((one, other))
    for number in range(VNI_TRIES):
        digest = hashlib.sha256(f"{low} {high} {bridge} {number}".encode()).digest()
        yield int.from_bytes(digest[:3], "big") or VNI_MAX


def to_text(tunnel: Tunnel) -> str:
    """The record as it is written."""
    fields = (
        _HEAD,
        ("version", _VERSION),
        ("vni", str(tunnel.vni)),
        ("bridge", tunnel.bridge),
        ("local", tunnel.local),
        ("remote", tunnel.remote),
        ("port", str(tunnel.port)),
        ("peer-port", str(tunnel.peer_port)),
        ("home", *sorted(map(str, tunnel.home))),
        ("guests", *sorted(map(str, tunnel.guests))),
        ("onward", *sorted(map(str, tunnel.onward))),
    )
    return dumps(fields) + "\n"


def from_text(text: str, *, source: str) -> Tunnel:
    """Read a record. Raises ConfigError or ValueError."""
    head, *fields = _list(parse_one(text, source=source))
    found = {str(name): [str(value) for value in values] for name, *values in map(_list, fields)}
    if head != _HEAD or found.get("version") != [_VERSION]:
        raise ValueError("this is no tunnel of a version known here")
    try:
        vni, bridge, local, remote, port, peer_port = (
            _single(found[key]) for key in ("vni", "bridge", "local", "remote", "port", "peer-port")
        )
        uuids = [frozenset(map(UUID, found[key])) for key in ("home", "guests", "onward")]
    except KeyError as error:
        raise ValueError(f"{error} is missing") from None
    if not 0 < int(vni) <= VNI_MAX or not BRIDGE.fullmatch(bridge):
        raise ValueError("number or bridge cannot be")
    addresses = (str(ip_address(local)), str(ip_address(remote)))
    return Tunnel(int(vni), bridge, *addresses, int(port), int(peer_port), *uuids)


def _single(values: list[str]) -> str:
    if len(values) != 1:
        raise ValueError("one value is expected")
    return values[0]


def _list(node: Node) -> SList:
    if not isinstance(node, SList):
        raise ValueError(f"'{node}' stands where a list is expected")
    return node
