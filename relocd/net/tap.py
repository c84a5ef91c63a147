"""Taps: persistent network devices that a hypervisor attaches to, as ports of a bridge.

Everything here blocks (deleting a device waits for the kernel's RCU grace period, tens of milliseconds), and
pyroute2's synchronous calls refuse to run inside an event loop: use one :class:`Links` in one worker thread.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from relocd.errors import DriverError


class Links:
    """One netlink connection of the network namespace in which its thread began."""

    def __init__(self) -> None:
        self._route = IPRoute()

    def close(self) -> None:
        """Let go of the connection; devices stay."""
        self._route.close()

    def create_tap(self, name: str, *, mac: str, bridge: str) -> None:
        """Make a tap, down, and a port of ``bridge``. Raises DriverError and leaves nothing if it cannot."""
        master = self._bridge_index(bridge)
        if _index(name):
            raise DriverError(
                f"the network device {name} exists already",
                hint=f"if nothing uses it, remove it with 'ip link delete {name}'",
            )
        with _explained(f"cannot create the tap {name}"):
            self._route.link("add", ifname=name, kind="tuntap", mode="tap")
        try:
            with _explained(f"cannot make {name} a port of {bridge}"):
                self._route.link("set", index=_index(name), address=mac, master=master)
        except DriverError:
            self.delete([name])
            raise

    def set_up(self, names: Iterable[str]) -> None:
        """Bring devices up: from now on frames pass. Raises DriverError if one is missing."""
        for name in names:
            with _explained(f"cannot bring {name} up"):
                self._route.link("set", ifname=name, state="up")

    def delete(self, names: Iterable[str]) -> None:
        """Remove devices, those that are there."""
        for name in names:
            index = _index(name)
            if index:
                with _explained(f"cannot delete {name}", ignore=errno.ENODEV):
                    self._route.link("del", index=index)

    def names(self, prefix: str) -> tuple[str, ...]:
        """Names of the devices that begin with ``prefix``."""
        found = (message.get("ifname") for message in self._route.get_links())
        return tuple(sorted(name for name in found if name and name.startswith(prefix)))

    def bridges(self) -> tuple[str, ...]:
        """Names of the bridges."""
        found = (message.get("ifname") for message in self._route.get_links(kind="bridge"))
        return tuple(sorted(name for name in found if name))

    def _bridge_index(self, bridge: str) -> int:
        bridges = self.bridges()
        index = _index(bridge) if bridge in bridges else 0
        if not index:
            known = ", ".join(bridges) or "none"
            raise DriverError(
                f"there is no bridge '{bridge}' on this host (bridges here: {known})",
                hint=f"create it ('ip link add {bridge} type bridge') or name another one in the vif",
            )
        return index


def _index(name: str) -> int:
    """The kernel's number of a device; 0 if there is none of this name."""
    try:
        return socket.if_nametoindex(name)
    except OSError:
        return 0


@contextmanager
def _explained(what: str, *, ignore: int = 0) -> Iterator[None]:
    try:
        yield
    except NetlinkError as error:
        if error.code != ignore:
            raise DriverError(f"{what}: {error.args[-1]}", hint=_hint(error.code)) from error
    except OSError as error:
        raise DriverError(f"{what}: {error.strerror}", hint=_hint(error.errno)) from error


def _hint(code: int | None) -> str:
    return {
        errno.EPERM: "relocd needs CAP_NET_ADMIN",
        errno.EACCES: "relocd needs CAP_NET_ADMIN and /dev/net/tun",
        errno.ENOENT: "load the kernel module tun",
        errno.EBUSY: "another program holds the device",
    }.get(code or 0, "")
