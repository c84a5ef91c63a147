"""What tells a network that a guest is somewhere else now: frames in the guest's name, and when they are sent.

The hypervisor announces the guest's MAC address itself (QEMU by RARP), which is all that switches need. These frames
also tell of its IP addresses, as far as its configuration names them, to hosts and switches that look at those.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

from attrs import frozen

from relocd.model import DomainConfig

#: When, in seconds after the domain was resumed: at once, and again for what was lost or not forwarding yet.
SCHEDULE_S: Final = (0.0, 0.1, 0.3, 1.0, 3.0)

ETHERTYPE_IPV6: Final = 0x86DD
ETHERTYPE_ARP: Final = 0x0806
ETHERTYPE_RARP: Final = 0x8035

_BROADCAST: Final = b"\xff" * 6
_ALL_NODES_MAC: Final = bytes.fromhex("333300000001")  # RFC 2464, section 7, for ff02::1
_ALL_NODES: Final = IPv6Address("ff02::1")
_MIN_FRAME_BYTES: Final = 60
_ICMPV6: Final = 58
_ADVERTISEMENT: Final = 136
_OVERRIDE: Final = 0x20000000


@frozen
class Announcement:
    """A frame, and the bridge that it is sent on."""

    bridge: str
    frame: bytes


def announcements(domain: DomainConfig) -> tuple[Announcement, ...]:
    """All that is sent at one time."""
    return tuple(
        Announcement(vif.bridge, frame)
        for vif in domain.vifs
        for frame in _frames(mac_bytes(vif.mac), map(ip_address, vif.ip))
    )


def _frames(mac: bytes, addresses: Iterable[IPv4Address | IPv6Address]) -> Iterator[bytes]:
    for address in addresses:
        yield (
            gratuitous_arp(mac, address) if isinstance(address, IPv4Address) else advertisement(mac, address)
        )


def mac_bytes(mac: str) -> bytes:
    """Six bytes of an address as it is written."""
    return bytes.fromhex(mac.replace(":", ""))


def gratuitous_arp(mac: bytes, address: IPv4Address) -> bytes:
    """An ARP announcement (RFC 5227, section 2.3): a request by the guest for its own address, to everyone."""
    ip = address.packed
    ethernet = _BROADCAST + mac + struct.pack("!H", ETHERTYPE_ARP)
    arp = struct.pack("!HHBBH6s4s6s4s", 1, 0x0800, 6, 4, 1, mac, ip, bytes(6), ip)
    return (ethernet + arp).ljust(_MIN_FRAME_BYTES, b"\0")


def advertisement(mac: bytes, address: IPv6Address) -> bytes:
    """An unsolicited neighbour advertisement (RFC 4861, sections 4.4 and 7.2.6) with its override flag."""
    option = struct.pack("!BB6s", 2, 1, mac)  # target link-layer address, in units of 8 bytes
    body = struct.pack("!I16s", _OVERRIDE, address.packed) + option
    blank = struct.pack("!BBH", _ADVERTISEMENT, 0, 0) + body
    message = struct.pack("!BBH", _ADVERTISEMENT, 0, _checksum(address, blank)) + body
    header = struct.pack("!IHBB", 6 << 28, len(message), _ICMPV6, 255) + address.packed + _ALL_NODES.packed
    return _ALL_NODES_MAC + mac + struct.pack("!H", ETHERTYPE_IPV6) + header + message


def _checksum(source: IPv6Address, message: bytes) -> int:
    """RFC 4443, section 2.3: over a header of its own kind and the message, whose length is even here."""
    covered = source.packed + _ALL_NODES.packed + struct.pack("!II", len(message), _ICMPV6) + message
    total: int = sum(struct.unpack(f"!{len(covered) // 2}H", covered))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
