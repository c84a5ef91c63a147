"""A packet filter's rules as far as they matter to the first packet of a connection, and what they do to it.

Not every rule can be read, and not everything is known about the packet (by which interface it comes). So a
condition has three values, and a verdict too: what depends on something unknown is undecided.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Iterator, Mapping
from ipaddress import IPv4Network, IPv6Network

from attrs import define, frozen

Network = IPv4Network | IPv6Network

#: Jumps within jumps; the kernel has the same limit (NFT_JUMP_STACK_SIZE of nf_tables.h).
MAX_DEPTH = 16

Truth = bool | None
"""True, False, or None for unknown."""


@frozen
class Packet:
    """The first packet of a connection to the relocation port, from any address of ``source``."""

    source: Network
    port: int


Condition = Callable[[Packet], Truth]


class Act(enum.Enum):
    """What a rule does to a packet that meets its conditions."""

    ACCEPT = enum.auto()  # it leaves this base chain, not the others
    DROP = enum.auto()  # refused, with or without an answer
    JUMP = enum.auto()
    GOTO = enum.auto()
    RETURN = enum.auto()
    NOTHING = enum.auto()
    UNKNOWN = enum.auto()


@frozen
class Rule:
    """``text`` is how people know it."""

    text: str
    conditions: tuple[Condition, ...]
    act: Act
    target: str = ""  # of a jump


@frozen
class Hook:
    """Where a base chain is called from. ``accepts`` is its policy."""

    name: str
    priority: int
    accepts: bool


@frozen
class Chain:
    """One chain. ``program`` says who showed it: nft, iptables, iptables-legacy.

    ``certain`` is false for a chain that sees the packets of some interfaces or bridges only.
    """

    program: str
    family: str
    table: str
    name: str
    rules: tuple[Rule, ...]
    hook: Hook | None = None
    certain: bool = True

    @property
    def place(self) -> str:
        """Table and chain, for people."""
        return f"{self.program} table {self.family} {self.table}, chain {self.name}"

    def sees(self, packet: Packet) -> bool:
        """Whether packets of this family come by at all."""
        return self.family not in ("ip", "ip6") or (self.family == "ip") == (packet.source.version == 4)


class Outcome(enum.StrEnum):
    """What becomes of the connection."""

    OPEN = "open"
    BLOCKED = "blocked"
    UNDECIDED = "undecided"


@frozen
class Verdict:
    """``because`` names the rule that blocks, or what could not be decided; empty if open."""

    outcome: Outcome
    because: str = ""


@define
class _Ends:
    """How the way through a chain may end; a rule's text where that matters.

    ``drop`` is the first rule that may refuse, ``surely`` the first one that refuses whatever comes as far as that.
    """

    accept: bool = False
    drop: str = ""
    surely: str = ""
    fall: bool = False
    doubt: str = ""

    def add(self, other: _Ends) -> None:
        self.accept |= other.accept
        self.drop = self.drop or other.drop
        self.surely = self.surely or other.surely
        self.doubt = self.doubt or other.doubt


def judge(chains: Iterable[Chain], packet: Packet) -> Verdict:
    """What all base chains together make of a packet: each must let it pass."""
    by_name = {(c.program, c.family, c.table, c.name): c for c in chains}
    base = [c for c in by_name.values() if c.hook is not None and c.sees(packet)]
    verdicts = [_through(chain, by_name, packet) for chain in base]
    for outcome in (Outcome.BLOCKED, Outcome.UNDECIDED):
        for verdict in verdicts:
            if verdict.outcome is outcome:
                return verdict
    return Verdict(Outcome.OPEN)


def _through(chain: Chain, by_name: Mapping[tuple[str, str, str, str], Chain], packet: Packet) -> Verdict:
    assert chain.hook is not None
    ends = _walk(chain, by_name, packet, 0)
    policy = f"the policy of {chain.place}, is drop" if ends.fall and not chain.hook.accepts else ""
    passes = ends.accept or (ends.fall and chain.hook.accepts)
    if not ends.drop and not policy:
        return Verdict(Outcome.OPEN)
    if chain.certain and not passes:
        return Verdict(Outcome.BLOCKED, ends.surely or policy or ends.drop)
    because = ends.drop or policy
    doubt = ends.doubt if chain.certain else f"whether packets come through {chain.place}"
    about = f"; not known: {doubt}" if doubt and doubt != because else ""
    return Verdict(Outcome.UNDECIDED, f"{because}{about}")


def _walk(
    chain: Chain, by_name: Mapping[tuple[str, str, str, str], Chain], packet: Packet, depth: int
) -> _Ends:
    ends = _Ends()
    for rule in chain.rules:
        truth = truth_of_all(condition(packet) for condition in rule.conditions)
        if truth is False or rule.act is Act.NOTHING:
            continue
        shown = f"'{rule.text}' in {chain.place}"
        if truth is None:
            ends.doubt = ends.doubt or f"whether {shown} applies"
        elif rule.act is Act.DROP:
            ends.surely = ends.surely or shown
        ended = _act(rule, shown, chain, by_name, packet, depth, ends)
        if ended and truth:
            return ends
    ends.fall = True
    return ends


def _act(
    rule: Rule,
    shown: str,
    chain: Chain,
    by_name: Mapping[tuple[str, str, str, str], Chain],
    packet: Packet,
    depth: int,
    ends: _Ends,
) -> bool:
    """Add to ``ends`` what the rule may do; whether the chain certainly ends with it."""
    match rule.act:
        case Act.ACCEPT:
            ends.accept = True
        case Act.DROP:
            ends.drop = ends.drop or shown
        case Act.RETURN:
            ends.fall = True
        case Act.JUMP | Act.GOTO:
            target = by_name.get((chain.program, chain.family, chain.table, rule.target))
            if target is None or depth >= MAX_DEPTH:
                return _unknown(shown, ends)
            below = _walk(target, by_name, packet, depth + 1)
            ends.add(below)
            if rule.act is Act.JUMP:
                return not below.fall
            ends.fall |= below.fall
        case _:
            return _unknown(shown, ends)
    return True


def _unknown(shown: str, ends: _Ends) -> bool:
    ends.add(_Ends(accept=True, drop=shown, doubt=f"what {shown} does"))
    return False


def truth_of_all(truths: Iterator[Truth]) -> Truth:
    """Whether all are true."""
    result: Truth = True
    for truth in truths:
        if truth is False:
            return False
        if truth is None:
            result = None
    return result


def truth_of_any(truths: Iterable[Truth]) -> Truth:
    """Whether one is true."""
    result: Truth = False
    for truth in truths:
        if truth:
            return True
        if truth is None:
            result = None
    return result


def negated(truth: Truth) -> Truth:
    """The opposite, unknown staying unknown."""
    return None if truth is None else not truth


def within(source: Network, network: Network) -> Truth:
    """Whether an address of ``source`` is in ``network``; None if some are."""
    if source.version != network.version or not source.overlaps(network):
        return False
    return True if network.prefixlen <= source.prefixlen else None
