"""Announcements, byte by byte, and the filter that finds a guest's first frame."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from relocd.model import DomainConfig, Vif
from relocd.segment.announce import (
    ETHERTYPE_RARP,
    SCHEDULE_S,
    advertisement,
    announcements,
    gratuitous_arp,
    mac_bytes,
)
from relocd.segment.packetfilter import SEEN_BYTES, from_guests

MAC = "00:16:3e:5a:00:10"
RAW = bytes.fromhex("00163e5a0010")


def test_an_arp_announcement_is_a_request_for_ones_own_address() -> None:
    frame = gratuitous_arp(RAW, IPv4Address("10.77.0.10"))
    assert frame.hex() == (
        "ffffffffffff" "00163e5a0010" "0806"
        "0001" "0800" "06" "04" "0001"
        "00163e5a0010" "0a4d000a" "000000000000" "0a4d000a"
    ) + "00" * 18  # fmt: skip


def test_a_neighbour_advertisement_goes_to_all_nodes_and_overrides() -> None:
    frame = advertisement(RAW, IPv6Address("2001:db8::10"))
    own, everyone = "20010db8000000000000000000000010", "ff020000000000000000000000000001"
    assert frame.hex() == (
        "333300000001" "00163e5a0010" "86dd"
        "60000000" "0020" "3a" "ff" + own + everyone +
        "88" "00" + frame[56:58].hex() + "20000000" + own +
        "02" "01" "00163e5a0010"
    )  # fmt: skip


@given(st.binary(min_size=6, max_size=6), st.ip_addresses(v=6))
def test_the_checksum_is_what_receivers_expect(mac: bytes, address: IPv6Address) -> None:
    frame = advertisement(mac, address)
    source, destination, message = frame[22:38], frame[38:54], frame[54:]
    covered = source + destination + struct.pack("!II", len(message), 58) + message
    total = sum(struct.unpack(f"!{len(covered) // 2}H", covered))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    assert total == 0xFFFF


def test_every_known_address_of_every_interface_is_announced_on_its_bridge() -> None:
    vifs = (
        Vif(MAC, "br0", ip=("10.0.0.1", "2001:db8::1")),
        Vif("00:16:3e:5a:00:11", "br1"),
        Vif("00:16:3e:5a:00:12", "br1", ip=("10.1.0.1",)),
    )
    told = announcements(DomainConfig("web", UUID(int=1), 64, vifs=vifs))
    assert [(item.bridge, item.frame[6:12].hex(":")) for item in told] == [
        ("br0", MAC),
        ("br0", MAC),
        ("br1", "00:16:3e:5a:00:12"),
    ]
    assert [item.frame[12:14].hex() for item in told] == ["0806", "86dd", "0806"]


def test_the_schedule_begins_at_once_and_goes_on() -> None:
    assert SCHEDULE_S[0] == 0
    assert list(SCHEDULE_S) == sorted(set(SCHEDULE_S))


def run_filter(program: bytes, frame: bytes) -> int:
    """What the kernel does with such a program; what lies outside of the frame ends it with 0."""
    code = [struct.unpack_from("=HBBI", program, at) for at in range(0, len(program), 8)]
    at = value = 0
    while True:
        kind, if_true, if_false, operand = code[at]
        at += 1
        if kind == 0x06:
            return int(operand)
        if kind == 0x15:
            at += if_true if value == operand else if_false
            continue
        size = {0x20: 4, 0x28: 2}[kind]
        if operand + size > len(frame):
            return 0
        value = int.from_bytes(frame[operand : operand + size], "big")


macs = st.binary(min_size=6, max_size=6)


@given(st.lists(macs, max_size=8), macs, st.sampled_from([0x0800, 0x0806, ETHERTYPE_RARP, 0x86DD]), st.data())
def test_the_filter_lets_a_guests_own_frames_pass(
    guests: list[bytes], stranger: bytes, kind: int, data: st.DataObject
) -> None:
    sender = data.draw(st.sampled_from([*guests, stranger]))
    frame = bytes(6) + sender + struct.pack("!H", kind) + bytes(46)
    wanted = sender in guests and kind != ETHERTYPE_RARP
    assert run_filter(from_guests(guests), frame) == (SEEN_BYTES if wanted else 0)


@given(st.lists(macs, max_size=8), st.binary(max_size=13))
def test_the_filter_lets_no_stump_pass(guests: list[bytes], frame: bytes) -> None:
    assert run_filter(from_guests(guests), frame) == 0


def test_a_mac_is_six_bytes() -> None:
    assert mac_bytes(MAC) == RAW
