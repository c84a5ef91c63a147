"""How many connections the relocation port may have, and of whom: nobody takes the place of all others."""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Callable
from ipaddress import IPv6Address, ip_address
from typing import Final

from attrs import define

from relocd.config import Config

#: Peers that no address pattern admits, while their names are looked up; and such of one host. They are apart from
#: the others: whoever may not come in must not be able to keep out those who may.
MAX_STRANGERS: Final = 16
MAX_STRANGERS_PER_HOST: Final = 4

_NETWORK_BITS: Final = 64  # of an IPv6 address: whoever has one usually has all of its network


class Stage(enum.Enum):
    """How far a connection is."""

    STRANGER = "stranger"  # its name is being looked up
    GREETING = "greeting"  # may speak, and has not introduced itself
    TALKING = "talking"


@define(eq=False)
class Guest:
    """One connection that is counted."""

    host: str
    stage: Stage


class Crowd:
    """Those who are connected. The limits are asked from the configuration each time, so a reload changes them."""

    def __init__(self, config: Callable[[], Config]) -> None:
        self._config = config
        self._total: Counter[Stage] = Counter()
        self._of_host: Counter[tuple[str, bool]] = Counter()

    @property
    def count(self) -> int:
        """Connections of all stages."""
        return self._total.total()

    def refusal(self, address: str, stage: Stage) -> str:
        """Why there is no room for one more at this stage; nothing if there is."""
        host = host_of(address)
        if stage is Stage.STRANGER:
            return self._no_room_for_strangers(host)
        config = self._config()
        admitted = self._total[Stage.GREETING] + self._total[Stage.TALKING]
        if admitted >= config.max_connections:
            return f"{admitted} connections are open, the limit (xen-relocation-max-connections)"
        if (own := self._of_host[host, False]) >= config.max_connections_per_host:
            return (
                f"it has {own} connections, the limit of one host (xen-relocation-max-connections-per-host)"
            )
        if (greeting := self._total[Stage.GREETING]) >= config.max_handshakes:
            return f"{greeting} connections are at their beginning, the limit (xen-relocation-max-handshakes)"
        return ""

    def _no_room_for_strangers(self, host: str) -> str:
        if (
            self._of_host[host, True] >= MAX_STRANGERS_PER_HOST
            or self._total[Stage.STRANGER] >= MAX_STRANGERS
        ):
            return "the names of too many peers are being looked up already"
        return ""

    def enter(self, address: str, stage: Stage) -> Guest:
        """Count one more, for which there is room."""
        guest = Guest(host_of(address), stage)
        self._add(guest, 1)
        return guest

    def move(self, guest: Guest, stage: Stage) -> None:
        """It has come further."""
        self._add(guest, -1)
        guest.stage = stage
        self._add(guest, 1)

    def leave(self, guest: Guest) -> None:
        """It is gone."""
        self._add(guest, -1)

    def _add(self, guest: Guest, one: int) -> None:
        self._total[guest.stage] += one
        key = guest.host, guest.stage is Stage.STRANGER
        self._of_host[key] += one
        if not self._of_host[key]:
            del self._of_host[key]  # or the table would keep every address that ever came


def host_of(address: str) -> str:
    """What counts as one host: an address, or the network of 64 bits that an IPv6 address is in."""
    parsed = ip_address(address)
    if isinstance(parsed, IPv6Address) and not parsed.is_link_local:
        return f"{IPv6Address(int(parsed) >> _NETWORK_BITS << _NETWORK_BITS)}/{_NETWORK_BITS}"
    return address
