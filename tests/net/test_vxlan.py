"""Ends of tunnels of a real kernel, in a network namespace of their own."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from attrs import evolve
from pyroute2 import IPRoute

from relocd.errors import DriverError
from relocd.net.vxlan import TunnelDevices
from relocd.segment.tunnel import Tunnel, device_name
from tests.net.namespace import add_bridge, private_network

pytestmark = pytest.mark.netns

TUNNEL = Tunnel(7, "br0", "192.0.2.1", "192.0.2.2", 4789, 8002)
SIX = evolve(TUNNEL, vni=8, local="2001:db8::1", remote="2001:db8::2")
NAME = device_name("abcd", 7)


@pytest.fixture
def devices() -> Iterator[TunnelDevices]:
    with private_network():
        add_bridge("br0")
        devices = TunnelDevices("abcd")
        yield devices
        devices.close()


def facts(name: str) -> dict[str, object]:
    with IPRoute() as route:
        (message,) = route.get_links(socket.if_nametoindex(name))
        told = dict(message.get("linkinfo").get("data")["attrs"])
        return told | {key: message.get(key) for key in ("mtu", "state", "master", "address", "index")}


def test_an_end_is_a_port_of_its_bridge_with_the_bridges_size(devices: TunnelDevices) -> None:
    devices.make(TUNNEL)
    made = facts(NAME)
    assert (made["IFLA_VXLAN_ID"], made["IFLA_VXLAN_PORT"]) == (7, 4789)
    assert (made["IFLA_VXLAN_LOCAL"], made["IFLA_VXLAN_GROUP"]) == ("192.0.2.1", "192.0.2.2")
    assert (made["mtu"], made["state"]) == (1500, "up")
    assert made["master"] == socket.if_nametoindex("br0")
    assert made["address"] == "fe:52:4c:00:00:07"


def test_making_it_again_changes_nothing_and_another_one_replaces_it(devices: TunnelDevices) -> None:
    devices.make(TUNNEL)
    index = facts(NAME)["index"]
    devices.make(TUNNEL)
    assert facts(NAME)["index"] == index
    devices.make(evolve(TUNNEL, remote="192.0.2.3"))
    assert facts(NAME)["IFLA_VXLAN_GROUP"] == "192.0.2.3"


def test_ipv6_below(devices: TunnelDevices) -> None:
    devices.make(SIX)
    devices.make(SIX)
    assert facts(device_name("abcd", 8))["IFLA_VXLAN_GROUP6"] == "2001:db8::2"


def test_a_number_is_taken_by_others_only(devices: TunnelDevices) -> None:
    devices.make(TUNNEL)
    assert not devices.taken(7, 4789)
    other = TunnelDevices("ffff")
    assert other.taken(7, 4789)
    assert not other.taken(7, 8472)
    assert not other.taken(8, 4789)
    with pytest.raises(DriverError, match="cannot make the tunnel") as caught:
        other.make(TUNNEL)
    assert "another VXLAN device" in caught.value.hint
    assert other.sweep([]) == ()
    other.close()


def test_strays_are_swept_and_those_with_a_record_are_kept(devices: TunnelDevices) -> None:
    devices.make(TUNNEL)
    devices.make(SIX)
    assert devices.sweep([7]) == (device_name("abcd", 8),)
    assert facts(NAME)["state"] == "up"
    for _ in range(2):
        devices.unmake(TUNNEL)
    assert devices.sweep([]) == ()


def test_without_its_bridge_there_is_no_end(devices: TunnelDevices) -> None:
    with pytest.raises(DriverError, match="no bridge br9"):
        devices.make(evolve(TUNNEL, bridge="br9"))
    assert devices.sweep([]) == ()
