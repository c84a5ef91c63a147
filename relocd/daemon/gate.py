"""Who may talk to the relocation port, and how many at once."""

from __future__ import annotations

from attrs import frozen

from relocd.allow import AllowList
from relocd.daemon.dialogue import plain_address
from relocd.daemon.lookup import Resolver


@frozen
class Admission:
    """The answer for one peer: why it may come in, or why not. One log line either way."""

    allowed: bool
    reason: str


class Gate:
    """Judges peers by the allow-list: addresses first; names are looked up only when no address pattern matched."""

    def __init__(self, allow: AllowList, resolver: Resolver) -> None:
        self._allow = allow
        self._resolver = resolver

    def replace(self, allow: AllowList) -> None:
        """Use another list from now on; connections that are in stay in."""
        self._allow = allow

    def judge_address(self, address: str) -> Admission | None:
        """Decide by address alone, or None if names must be looked up first."""
        if self._allow.is_empty:
            return Admission(False, "xen-relocation-hosts-allow is empty: nobody is allowed")
        pattern = self._allow.match_address(address)
        if pattern is not None:
            return Admission(True, f"address {address} matches {pattern}")
        if not self._allow.needs_names:
            return Admission(False, f"{address} matches no pattern of xen-relocation-hosts-allow")
        return None

    async def judge_names(self, address: str) -> Admission:
        """Decide by the confirmed names of an address that no pattern matched."""
        names = await self._resolver.confirmed_names(plain_address(address))
        for name in names:
            pattern = self._allow.match_name(name)
            if pattern is not None:
                return Admission(True, f"name {name} of {address} matches {pattern}")
        known = f"its confirmed names: {', '.join(names)}" if names else "no confirmed name"
        return Admission(False, f"{address} ({known}) matches no pattern of xen-relocation-hosts-allow")
