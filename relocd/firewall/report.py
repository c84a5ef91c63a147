"""Which allowed hosts reach the relocation port, pattern by pattern, as docs/firewall.md describes it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from ipaddress import ip_network

from attrs import frozen

from relocd.firewall.peers import Network, Reach, collapsed, host_network
from relocd.firewall.plan import Wanted
from relocd.firewall.ruleset import Chain, Outcome, Packet, Verdict, judge

EVERYWHERE: tuple[Network, ...] = (ip_network("0.0.0.0/0"), ip_network("::/0"))
_ORDER = (Outcome.BLOCKED, Outcome.UNDECIDED, Outcome.OPEN)

#: Networks of one pattern that are judged. Each is led through all rules.
MAX_JUDGED = 64

Addresses = Mapping[str, Sequence[str]]
"""What each name leads to."""


@frozen
class Finding:
    """What becomes of the hosts of one pattern. ``networks`` are those behind its names, too."""

    reach: Reach
    networks: tuple[Network, ...]
    verdict: Verdict


def networks_of(reach: Reach, addresses: Addresses) -> tuple[Network, ...]:
    """The addresses of a pattern's hosts, names included, other hosts only."""
    if reach.everybody:
        return EVERYWHERE
    named = [host_network(address) for name in reach.names for address in addresses.get(name, ())]
    return tuple(n for n in collapsed([*reach.networks, *named]) if not n.is_loopback)


def wanted_for(name: str, port: int, reaches: Iterable[Reach], addresses: Addresses) -> Wanted:
    """What relocd would have a packet filter do."""
    given = list(reaches)
    everybody = any(reach.everybody for reach in given)
    networks = () if everybody else collapsed(n for reach in given for n in networks_of(reach, addresses))
    return Wanted(name, port, networks, everybody)


def examine(
    chains: Sequence[Chain], port: int, reaches: Iterable[Reach], addresses: Addresses
) -> list[Finding]:
    """Judge each pattern's hosts; of several verdicts the worst one counts."""
    found = []
    for reach in reaches:
        networks = networks_of(reach, addresses)
        verdicts = [judge(chains, Packet(network, port)) for network in networks[:MAX_JUDGED]]
        if len(networks) > MAX_JUDGED:
            because = f"only the first {MAX_JUDGED} of {len(networks)} networks were looked at"
            verdicts.append(Verdict(Outcome.UNDECIDED, because))
        found.append(Finding(reach, networks, worst(verdicts)))
    return found


def is_open_to_all(chains: Sequence[Chain], port: int) -> bool:
    """Whether every address reaches the port, of IPv4 or of IPv6."""
    return any(judge(chains, Packet(network, port)).outcome is Outcome.OPEN for network in EVERYWHERE)


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """The first of the worst ones; open without any."""
    return min(verdicts, key=lambda verdict: _ORDER.index(verdict.outcome), default=Verdict(Outcome.OPEN))
