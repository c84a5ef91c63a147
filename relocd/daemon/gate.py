"""Who may talk to the relocation port, and how many at once."""

from __future__ import annotations

from attrs import frozen

from relocd.allow import AllowList, forms_of
from relocd.daemon.dialogue import plain_address
from relocd.daemon.lookup import Resolver, ReverseName


@frozen
class Admission:
    """The answer for one peer: why it may come in, or why not. One log line either way."""

    allowed: bool
    reason: str


@frozen
class Explanation:
    """``names`` is None if they could not be looked up in time; ``tried`` has each pattern and what it matched."""

    admission: Admission
    looked_up: bool
    names: tuple[ReverseName, ...] | None
    tried: dict[str, str]


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
        return self._judge(address, await self._resolver.confirmed_names(plain_address(address)))

    async def explain(self, address: str) -> Explanation:
        """The decision about an address, with everything that led to it; names are looked up as for a peer."""
        admission = self.judge_address(address)
        names: tuple[ReverseName, ...] | None = ()
        if admission is None:
            names = await self._resolver.reverse_names(plain_address(address))
            confirmed = tuple(found.name for found in names or () if found.confirmed)
            return Explanation(self._judge(address, confirmed), True, names, self._tried(address, confirmed))
        return Explanation(admission, False, (), self._tried(address, ()))

    async def addresses(self, host: str) -> tuple[str, ...] | None:
        """The addresses of a host's name; None if they were not found out in time."""
        return await self._resolver.addresses(host)

    def name_pattern(self, name: str) -> str | None:
        """The pattern that a name would match if it were confirmed."""
        return self._allow.match_name(name)

    def _tried(self, address: str, names: tuple[str, ...]) -> dict[str, str]:
        return self._allow.matching([*forms_of(address), *(name.removesuffix(".") for name in names)])

    def _judge(self, address: str, names: tuple[str, ...]) -> Admission:
        for name in names:
            pattern = self._allow.match_name(name)
            if pattern is not None:
                return Admission(True, f"name {name} of {address} matches {pattern}")
        known = f"its confirmed names: {', '.join(names)}" if names else "no confirmed name"
        return Admission(False, f"{address} ({known}) matches no pattern of xen-relocation-hosts-allow")
