"""Conditions of nft rules (``match`` in libnftables-json(5)), judged for the first packet of a connection."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from ipaddress import ip_network
from typing import Any

from relocd.firewall.ruleset import Condition, Network, Packet, Truth, negated, truth_of_any, within

Sets = Mapping[str, list[Any]]
"""The named sets and maps of a table, with their elements."""


class _Never:
    """The packet has no such field: no condition on it is met."""


class _Unknown:
    """Nothing is known about it."""


class _Device:
    """An interface that peers come by: not the loopback one, otherwise any."""


class _Destination:
    """An address of this host."""


class _Route:
    """The way back to where the packet came from: by the same interface, or the peer would get no answer."""


class _Flags:
    """The flags of the first packet."""


_NEVER, _UNKNOWN, _DEVICE, _DESTINATION, _FLAGS = _Never(), _Unknown(), _Device(), _Destination(), _Flags()
_ROUTE = _Route()
#: What the connection is to the kernel. ``status`` is empty: a rule that translates addresses decides by itself.
_CONNECTION = {"state": frozenset({"new"}), "status": frozenset[str](), "direction": "original"}
_SYN = frozenset({"syn"})
_TCP = ("tcp", 6)

_Value = Any  # int, str, Network, a frozenset of words of which one must be met, or one of the above
_Field = Callable[[Packet], _Value]


def condition_of(match: Mapping[str, Any], sets: Sets) -> Condition:
    """One ``match``."""
    operator, right = match.get("op", "=="), match.get("right")
    field = _field(match.get("left"))
    masked = _masked_flags(match.get("left"))

    def judge(packet: Packet) -> Truth:
        value = field(packet)
        if value is _NEVER:
            return False
        if masked is not None:
            return _compare_flags(masked, operator, right)
        if value is _FLAGS:
            return _compare_flags(None, operator, right)
        if operator in ("==", "in"):
            return _equals(value, right, sets)
        if operator == "!=":
            return negated(_equals(value, right, sets))
        return _ordered(value, operator, right)

    return judge


def truth_of_value(left: Any, right: Any, sets: Sets) -> Condition:
    """Whether an expression has one value: for the keys of verdict maps."""
    if isinstance(right, str) and right == "*":
        return _unknown  # the catch-all element: met if no other is
    return condition_of({"op": "==", "left": left, "right": right}, sets)


def _unknown(_: Packet) -> Truth:
    return None


def _field(left: Any) -> _Field:
    if not isinstance(left, dict) or len(left) != 1:
        return lambda _: _UNKNOWN
    ((kind, what),) = left.items()
    if kind == "payload" and isinstance(what, dict):
        return _payload(str(what.get("protocol")), str(what.get("field")))
    if kind == "meta" and isinstance(what, dict):
        return _META.get(str(what.get("key")), lambda _: _UNKNOWN)
    if kind == "ct" and isinstance(what, dict):
        value = _CONNECTION.get(str(what.get("key")), _UNKNOWN)
        return lambda _: value
    if kind == "fib" and isinstance(what, dict):
        return _looked_up(str(what.get("result")), what.get("flags"))
    return lambda _: _UNKNOWN


def _looked_up(result: str, flags: Any) -> _Field:
    """What the routing table says of an address; nft writes a flag that is alone without its list, too."""
    words = {flags} if isinstance(flags, str) else set(filter(lambda f: isinstance(f, str), flags or ()))
    if result == "type" and words == {"daddr"}:
        return lambda _: "local"
    if result in ("oif", "oifname") and words - {"mark"} == {"saddr", "iif"}:
        return lambda _: _ROUTE
    return lambda _: _UNKNOWN


def _payload(protocol: str, field: str) -> _Field:
    if protocol in ("tcp", "th"):
        if field == "dport":
            return lambda packet: packet.port
        return lambda _: _FLAGS if field == "flags" else _UNKNOWN
    if protocol in ("ip", "ip6"):
        version = 4 if protocol == "ip" else 6
        return lambda packet: _of_ip(packet, field) if packet.source.version == version else _NEVER
    if protocol in ("ether", "vlan"):
        return lambda _: _UNKNOWN
    return lambda _: _NEVER  # udp, icmp, arp and so on


def _of_ip(packet: Packet, field: str) -> _Value:
    if field == "saddr":
        return packet.source
    if field == "daddr":
        return _DESTINATION
    return "tcp" if field in ("protocol", "nexthdr") else _UNKNOWN


_META: dict[str, _Field] = {
    "l4proto": lambda _: "tcp",
    "nfproto": lambda packet: f"ipv{packet.source.version}",
    "protocol": lambda packet: "ip" if packet.source.version == 4 else "ip6",
    "iifname": lambda _: _DEVICE,
    "iif": lambda _: _DEVICE,
}


def _equals(value: _Value, right: Any, sets: Sets) -> Truth:
    if isinstance(right, str) and right.startswith("@"):
        named = sets.get(right[1:])
        return None if named is None else _one_of(value, named, sets)
    if isinstance(right, dict) and "set" in right:
        inner = right["set"]
        return _one_of(value, inner if isinstance(inner, list) else [inner], sets)
    if isinstance(right, list):
        return _one_of(value, right, sets)
    if isinstance(right, dict) and "elem" in right:
        return _equals(value, right["elem"].get("val"), sets)
    if value is _UNKNOWN:
        return None
    if value is _ROUTE:
        return right if isinstance(right, bool) else None
    if value is _DEVICE:
        return False if right == "lo" else None
    if value is _DESTINATION:
        return _own_address(right)
    if isinstance(value, Network):
        return _address(value, right)
    if isinstance(value, frozenset):
        return right in value if isinstance(right, str) else None
    if isinstance(right, dict) and "range" in right:
        low, high = right["range"]
        return low <= value <= high if isinstance(value, int) and isinstance(low, int) else None
    if value == "tcp":
        return right in _TCP if isinstance(right, str | int) else None
    return bool(value == right) if isinstance(right, str | int) else None


def _one_of(value: _Value, elements: list[Any], sets: Sets) -> Truth:
    return truth_of_any(_equals(value, element, sets) for element in elements)


def _address(source: Network, right: Any) -> Truth:
    if isinstance(right, dict) and "range" in right:
        return _in_range(source, *right["range"])
    if isinstance(right, dict) and "prefix" in right:
        right = f"{right['prefix'].get('addr')}/{right['prefix'].get('len')}"
    try:
        return within(source, ip_network(str(right), strict=False))
    except ValueError:
        return None


def _own_address(right: Any) -> Truth:
    """Which addresses this host has is not looked up; those of groups are no host's own."""
    if isinstance(right, dict) and "prefix" in right:
        right = f"{right['prefix'].get('addr')}/{right['prefix'].get('len')}"
    try:
        network = ip_network(str(right), strict=False)
    except ValueError:
        return None
    return False if network.is_multicast or str(network) == "255.255.255.255/32" else None


def _in_range(source: Network, low: Any, high: Any) -> Truth:
    try:
        first, last = ip_network(str(low))[0], ip_network(str(high))[0]
    except ValueError:
        return None
    if first.version != source.version:
        return False
    if int(source[-1]) < int(first) or int(source[0]) > int(last):
        return False
    return True if int(first) <= int(source[0]) and int(source[-1]) <= int(last) else None


def _ordered(value: _Value, operator: str, right: Any) -> Truth:
    if not isinstance(value, int) or not isinstance(right, int):
        return None
    tables = {"<": value < right, ">": value > right, "<=": value <= right, ">=": value >= right}
    return tables.get(operator)


def _masked_flags(left: Any) -> frozenset[str] | None:
    """The mask of ``tcp flags & mask``, None if it is none."""
    inner = left.get("&") if isinstance(left, dict) else None
    if not isinstance(inner, list) or len(inner) != 2 or _field(inner[0])(_ANY) is not _FLAGS:
        return None
    return _words(inner[1])


def _words(value: Any) -> frozenset[str]:
    if isinstance(value, dict) and "|" in value:
        value = value["|"]
    if isinstance(value, list):
        return frozenset().union(*map(_words, value))
    return frozenset({str(value)}) if value not in (0, None) else frozenset()


def _compare_flags(mask: frozenset[str] | None, operator: str, right: Any) -> Truth:
    wanted = _words(right)
    if operator == "in":
        return bool(_SYN & wanted)
    met = (_SYN if mask is None else _SYN & mask) == wanted
    return met if operator == "==" else not met if operator == "!=" else None


_ANY = Packet(ip_network("0.0.0.0/0"), 0)
