r"""The allow-list in the terms of a packet filter: addresses, networks, and names to look up.

The filter may let in more than the allow-list, since the daemon decides in any case, and never less. A pattern
whose hosts cannot be listed (``.*\.example\.org``) therefore stands for everybody.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Network, IPv6Address, IPv6Network, collapse_addresses, ip_address

from attrs import frozen

from relocd.firewall.language import ALPHABET, Language, NotRegularError, States, language_of

Network = IPv4Network | IPv6Network

#: Patterns with more texts than this are taken for ranges of addresses, or for everybody.
MAX_WORDS = 256

#: Rules for one pattern; more are neither readable nor quick.
MAX_NETWORKS = 1024

_TOO_MANY = f"it would take more than {MAX_NETWORKS} networks"
_DIGITS = frozenset("0123456789")
_NAME = re.compile(r"(?=.*[a-z])[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*")
_GROUP = re.compile(r"[1-9a-f][0-9a-f]{0,3}")  # of an IPv6 address, not zero, in its usual short form


@frozen
class Reach:
    """Which hosts one pattern lets in. ``reason`` says why it stands for everybody, or for nobody."""

    pattern: str
    networks: tuple[Network, ...] = ()
    names: tuple[str, ...] = ()
    everybody: bool = False
    reason: str = ""


def reach_of(pattern: str) -> Reach:
    """The hosts of one pattern that relocd.patterns has accepted."""
    try:
        language = language_of(pattern)
        words = language.words(MAX_WORDS)
        if words is not None:
            return _listed(pattern, words)
        if _is_everything(language):
            return Reach(pattern, everybody=True)
        if _begins_like_ipv4(language) and (networks := _ipv4_networks(language)):
            return Reach(pattern, collapsed(networks))
    except NotRegularError as error:
        return Reach(pattern, everybody=True, reason=f"it cannot be turned into addresses: {error}")
    covered = _ipv6_network(language)
    if covered is not None:
        return Reach(pattern, networks=(covered,))
    return Reach(pattern, everybody=True, reason="it matches names or addresses that cannot be listed")


def _listed(pattern: str, words: Iterable[str]) -> Reach:
    networks: list[Network] = []
    names: list[str] = []
    for word in words:
        network = _network_of(word)
        if network is not None:
            networks.append(network)
        elif _NAME.fullmatch(word):
            names.append(word)
    return _told(pattern, networks, names)


def _told(pattern: str, networks: Iterable[Network], names: Iterable[str] = ()) -> Reach:
    reach = Reach(pattern, collapsed(networks), tuple(names))
    if reach.networks or reach.names:
        return reach
    return Reach(pattern, reason="it matches no address in its usual short form, and no name")


def collapsed(networks: Iterable[Network]) -> tuple[Network, ...]:
    """The same addresses in as few networks as possible, IPv4 first."""
    given = set(networks)
    four = collapse_addresses(n for n in given if isinstance(n, IPv4Network))
    six = collapse_addresses(n for n in given if isinstance(n, IPv6Network))
    return (*four, *six)


def host_network(address: str) -> Network:
    """The network that is one address: an IPv6 address that stands for an IPv4 one is that, zones are dropped."""
    parsed = ip_address(address.partition("%")[0])
    if isinstance(parsed, IPv6Address):
        mapped = parsed.ipv4_mapped
        return IPv4Network(mapped) if mapped else IPv6Network(parsed)
    return IPv4Network(parsed)


def _network_of(word: str) -> Network | None:
    """As relocd.allow reads addresses: only the usual short form is ever compared."""
    try:
        return host_network(word) if str(ip_address(word)) == word else None
    except ValueError:
        return None


def _is_everything(language: Language) -> bool:
    """Whether every text matches, the empty one perhaps excepted."""
    after = {language.step(language.start(), char) for char in ALPHABET}
    later = {language.step(states, char) for states in after for char in ALPHABET}
    return all(map(language.accepts, after | later)) and all(
        language.step(states, char) in later for states in later for char in ALPHABET
    )


def _begins_like_ipv4(language: Language) -> bool:
    """Whether what matches begins with a number and a dot, so that it is no name anybody has.

    A dot without a backslash, as in ``192.168.*``, is taken for a dot if the number before it is fixed.
    """
    start = language.start()
    if language.alive(start) - _DIGITS - {"."}:
        return False
    return _fixed_number(language, start) or all(
        language.alive(states) <= _DIGITS | {"."} for states in _after_digits(language, start, 5)
    )


def _after_digits(language: Language, states: States, most: int) -> Iterator[States]:
    frontier = {states}
    for _ in range(most):
        frontier = {language.step(s, d) for s in frontier for d in language.alive(s) & _DIGITS}
        yield from frontier


def _fixed_number(language: Language, states: States) -> bool:
    for _ in range(3):
        alive = language.alive(states)
        if len(alive) != 1:
            return False
        states = language.step(states, min(alive))
        if language.alive(states) == frozenset(ALPHABET):
            return language.alive(language.step(states, ".")) != frozenset(ALPHABET)
    return False


def _ipv4_networks(language: Language) -> list[Network]:
    found = _octets(language, language.start(), 0, {})
    return [IPv4Network((value << (32 - length), length)) for value, length in found]


_Prefixes = list[tuple[int, int]]  # leading bits as a number, and how many there are


def _octets(
    language: Language, states: States, depth: int, known: dict[tuple[States, int], _Prefixes]
) -> _Prefixes:
    """The networks below what was read so far, one octet deeper with each call."""
    if depth == 4:
        return [(0, 0)] if language.accepts(states) else []
    if (states, depth) not in known:
        found: _Prefixes = []
        for octet in range(256):
            after = language.step(states, f"{octet}." if depth < 3 else f"{octet}")
            below = _octets(language, after, depth + 1, known) if after else []
            found += [(octet << length | value, length + 8) for value, length in below]
        if len(found) > 8 * MAX_NETWORKS:
            raise NotRegularError(_TOO_MANY)
        known[states, depth] = _merged(found)
    return known[states, depth]


def _merged(prefixes: _Prefixes) -> _Prefixes:
    """Two halves become their whole, as often as there are two."""
    left = set(prefixes)
    for length in range(32, 0, -1):
        for value, own in sorted(left):
            if own == length and value % 2 == 0 and (value | 1, length) in left:
                left -= {(value, length), (value | 1, length)}
                left.add((value >> 1, length - 1))
    if len(left) > MAX_NETWORKS:
        raise NotRegularError(_TOO_MANY)
    return sorted(left)


def _ipv6_network(language: Language) -> Network | None:
    """The network that all addresses with the pattern's fixed beginning are in, as for ``2001:db8:.*``."""
    states, text = language.start(), ""
    while len(alive := language.alive(states)) == 1 and not language.accepts(states):
        text += min(alive)
        states = language.step(states, min(alive))
    groups = []
    for group in text.split(":")[:-1]:
        if not _GROUP.fullmatch(group):
            break
        groups.append(group)
    if not groups or len(groups) > 7:
        return None
    return IPv6Network((f"{':'.join(groups)}::", 16 * len(groups)))
