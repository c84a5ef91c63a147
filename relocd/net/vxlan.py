"""Our ends of tunnels as devices of the kernel: VXLAN (RFC 7348), as ports of bridges.

Everything here blocks; see relocd.net.tap for the rules. A device is made of a record, so that making it again, or
after a crash, comes to the same.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable
from ipaddress import ip_address

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from relocd.errors import DriverError
from relocd.segment.tunnel import Tunnel, device_mac, device_name, device_prefix


class TunnelDevices:
    """One netlink connection of the network namespace in which its thread began; ``tag`` is the daemon's."""

    def __init__(self, tag: str) -> None:
        self._tag = tag
        self._route = IPRoute()

    def close(self) -> None:
        """Let go of the connection; devices stay."""
        self._route.close()

    def taken(self, vni: int, port: int) -> bool:
        """Is there a tunnel with that number and UDP port already, other than ours of that very name?"""
        own = device_name(self._tag, vni)
        for message in self._route.get_links(kind="vxlan"):
            facts = message.get("linkinfo").get("data")
            if message.get("ifname") != own and (facts.get("vxlan_id"), facts.get("vxlan_port")) == (
                vni,
                port,
            ):
                return True
        return False

    def make(self, tunnel: Tunnel) -> None:
        """Have the device there, up, and a port of its bridge. Idempotent. Raises DriverError, and leaves none."""
        name = device_name(self._tag, tunnel.vni)
        try:
            bridge = self._index(tunnel.bridge)
            if not bridge:
                raise DriverError(f"there is no bridge {tunnel.bridge}")
            if self._index(name) and not self._is(name, tunnel):
                self.remove([name])
            if not self._index(name):
                self._route.link("add", ifname=name, kind="vxlan", **_settings(tunnel))
            (port,) = self._route.get_links(bridge)
            # Frames of the bridge's size must fit, whatever the network below takes: what is too large for that is
            # cut in two by IP, or told to its sender where it may not be cut.
            mtu = port.get("mtu")
            self._route.link(
                "set",
                index=self._index(name),
                address=device_mac(tunnel.vni),
                mtu=mtu,
                master=bridge,
                state="up",
            )
        except NetlinkError as error:
            self.remove([name])
            raise DriverError(
                f"cannot make the tunnel {name}: {_why(error)}", hint=_hint(error.code)
            ) from error

    def remove(self, names: Iterable[str]) -> None:
        """Remove devices, those that are there. Raises DriverError."""
        for name in names:
            index = self._index(name)
            if index:
                try:
                    self._route.link("del", index=index)
                except NetlinkError as error:
                    if error.code != errno.ENODEV:
                        raise DriverError(f"cannot remove the tunnel {name}: {_why(error)}") from error

    def unmake(self, tunnel: Tunnel) -> None:
        """Remove the device of a record. Idempotent."""
        self.remove([device_name(self._tag, tunnel.vni)])

    def sweep(self, kept: Iterable[int]) -> tuple[str, ...]:
        """Remove the devices of this daemon whose numbers are not among these; their names."""
        names = {device_name(self._tag, vni) for vni in kept}
        found = (message.get("ifname") for message in self._route.get_links(kind="vxlan"))
        strays = tuple(n for n in found if n and n.startswith(device_prefix(self._tag)) and n not in names)
        self.remove(strays)
        return strays

    def _is(self, name: str, tunnel: Tunnel) -> bool:
        """Is the device of that name the one of this record?"""
        (message,) = self._route.get_links(self._index(name))
        facts = (message.get("linkinfo") or {}).get("data") or {}
        return all(str(facts.get(key)) == str(value) for key, value in _settings(tunnel).items())

    def _index(self, name: str) -> int:
        try:
            return socket.if_nametoindex(name)
        except OSError:
            return 0


def _settings(tunnel: Tunnel) -> dict[str, object]:
    six = "6" if ip_address(tunnel.remote).version == 6 else ""
    return {
        "vxlan_id": tunnel.vni,
        f"vxlan_group{six}": tunnel.remote,
        f"vxlan_local{six}": tunnel.local,
        "vxlan_port": tunnel.port,
        "vxlan_learning": 0,
    }


def _why(error: NetlinkError) -> str:
    return str(error.args[-1])


def _hint(code: int | None) -> str:
    return {
        errno.EPERM: "relocd needs CAP_NET_ADMIN",
        errno.EOPNOTSUPP: "load the kernel module vxlan",
        errno.EEXIST: "another VXLAN device has this number and UDP port",
    }.get(code or 0, "")
