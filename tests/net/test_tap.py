"""Taps and bridges of a real kernel, in a network namespace of their own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pyroute2 import IPRoute

from relocd.errors import DriverError
from relocd.net.tap import Links
from tests.net.namespace import add_bridge, private_network

pytestmark = pytest.mark.netns

MAC = "fe:16:3e:00:00:01"


@pytest.fixture
def links() -> Iterator[Links]:
    with private_network():
        add_bridge("br0")
        links = Links()
        yield links
        links.close()


def attribute(device: str, name: str) -> str:
    """What the kernel says of a device, by netlink: /sys is that of the namespace in which it was mounted."""
    with IPRoute() as route:
        (index,) = route.link_lookup(ifname=device)
        (message,) = route.get_links(index)
        return str(message.get(name))


def test_a_new_tap_is_a_port_of_its_bridge_and_down(links: Links) -> None:
    links.create_tap("rl0", mac=MAC, bridge="br0")
    assert attribute("rl0", "address") == MAC
    assert attribute("rl0", "state") == "down"
    assert attribute("rl0", "master") == attribute("br0", "index")
    links.set_up(["rl0"])
    assert attribute("rl0", "state") == "up"


def test_the_tap_stays_without_a_user_and_ends_when_deleted(links: Links) -> None:
    links.create_tap("rl0", mac=MAC, bridge="br0")
    links.create_tap("rl1", mac=MAC, bridge="br0")
    assert links.names("rl") == ("rl0", "rl1")
    for _ in range(2):
        links.delete(["rl0", "rl1"])
        assert links.names("rl") == ()


def test_a_missing_bridge_is_named_with_those_there_are(links: Links) -> None:
    add_bridge("br1")
    with pytest.raises(DriverError, match=r"no bridge 'nobr'.*br0, br1") as caught:
        links.create_tap("rl0", mac=MAC, bridge="nobr")
    assert "ip link add nobr type bridge" in caught.value.hint
    assert links.names("rl") == ()


def test_a_device_that_is_no_bridge_is_none(links: Links) -> None:
    with pytest.raises(DriverError, match="no bridge 'lo'"):
        links.create_tap("rl0", mac=MAC, bridge="lo")


def test_a_tap_that_exists_is_not_taken_over(links: Links) -> None:
    links.create_tap("rl0", mac=MAC, bridge="br0")
    with pytest.raises(DriverError, match="rl0 exists already"):
        links.create_tap("rl0", mac=MAC, bridge="br0")
    assert links.names("rl") == ("rl0",)


def test_an_address_that_cannot_be_leaves_no_tap(links: Links) -> None:
    with pytest.raises(DriverError, match="rl0"):
        links.create_tap("rl0", mac="ff:ff:ff:ff:ff:ff", bridge="br0")
    assert links.names("rl") == ()


def test_a_missing_tap_cannot_be_brought_up(links: Links) -> None:
    with pytest.raises(DriverError, match="cannot bring rl9 up"):
        links.set_up(["rl9"])


def test_only_devices_with_the_prefix_are_named(links: Links) -> None:
    links.create_tap("rl0", mac=MAC, bridge="br0")
    links.create_tap("other0", mac=MAC, bridge="br0")
    assert links.names("rl") == ("rl0",)
    assert links.bridges() == ("br0",)
