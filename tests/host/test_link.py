"""What the interface of an address says of its link."""

from __future__ import annotations

import pytest
from pyroute2 import IPRoute

from relocd.host.link import lanes_for, link_mbit_s
from relocd.pages.limits import LANES_MAX
from tests.net.namespace import private_network


def test_loopback_and_strangers_tell_no_speed() -> None:
    assert link_mbit_s("127.0.0.1") is None
    assert link_mbit_s("192.0.2.99") is None
    assert 1 <= lanes_for("127.0.0.1") <= LANES_MAX


@pytest.mark.netns
@pytest.mark.parametrize(("network", "address"), [("192.0.2.1/24", "192.0.2.1"), ("fe80::7/64", "fe80::7")])
def test_an_interface_tells_its_speed(network: str, address: str) -> None:
    """A veth claims 10 Gbit/s (drivers/net/veth.c of Linux)."""
    plain, _, length = network.partition("/")
    with private_network(), IPRoute() as route:
        route.link("add", ifname="near", kind="veth", peer="far")
        (index,) = route.link_lookup(ifname="near")
        for name in ("near", "far"):
            route.link("set", ifname=name, state="up")
        route.addr("add", index=index, address=plain, prefixlen=int(length))
        assert link_mbit_s(address) == 10_000
