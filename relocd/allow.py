"""The allow-list: which peers may talk to this host.

Every pattern is matched in full, first with the peer's address. Only if none matches and
:attr:`AllowList.needs_names` is true need the caller look up the peer's name, confirm it (the name must lead
back to the address) and try that.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import IPv6Address, ip_address

from relocd.errors import ConfigError
from relocd.patterns import MAX_SUBJECT_CHARACTERS, MAX_WAYS, compile_pattern, may_match_letters, ways_of


class AllowList:
    """Patterns that are compiled once. An empty list lets nobody in; everyone is ``.*``."""

    def __init__(self, patterns: Iterable[str]) -> None:
        """Raises ConfigError that names the pattern which is wrong, or says that all together are too much."""
        self._patterns: dict[str, re.Pattern[str]] = {text: compile_pattern(text) for text in patterns}
        if sum(map(ways_of, self._patterns)) > MAX_WAYS:
            raise ConfigError(
                "the patterns together could take very long to match",
                source="allow-list",
                hint="Have fewer of those with two or three '*' and '+'.",
            )
        self.needs_names = any(map(may_match_letters, self._patterns))
        """Whether a name could match where an address did not."""

    @property
    def patterns(self) -> tuple[str, ...]:
        """The patterns as they were written, each once."""
        return tuple(self._patterns)

    @property
    def is_empty(self) -> bool:
        """Whether nobody at all is let in."""
        return not self._patterns

    def match_address(self, address: str) -> str | None:
        """The first pattern that matches an IP address in its usual short form, or None.

        An IPv6 address that stands for an IPv4 one (``::ffff:10.0.0.1``, RFC 4291, 2.5.5.2) is matched as
        either. A link-local one keeps its zone: ``fe80::1%eth0``.
        """
        return self._match(*forms_of(address))

    def match_name(self, name: str) -> str | None:
        """The first pattern that matches a host name, or None. Case and a last dot do not matter.

        A "name" that is an address is never matched: only the connection says which address a peer has.
        """
        name = name.removesuffix(".")
        if not name or _is_address(name):
            return None
        return self._match(name)

    def matching(self, subjects: Iterable[str]) -> dict[str, str]:
        """Each pattern, in order, with the first of the texts that it matches, or nothing: to explain a decision."""
        texts = [text for text in subjects if len(text) <= MAX_SUBJECT_CHARACTERS]
        return {
            pattern: next(filter(compiled.fullmatch, texts), "")
            for pattern, compiled in self._patterns.items()
        }

    def _match(self, *subjects: str) -> str | None:
        for subject in subjects:
            if len(subject) > MAX_SUBJECT_CHARACTERS:
                continue
            for text, pattern in self._patterns.items():
                if pattern.fullmatch(subject):
                    return text
        return None


def forms_of(address: str) -> tuple[str, ...]:
    """The texts that stand for an IP address when patterns are tried, none if it is no address."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return ()
    if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped:
        return (str(parsed.ipv4_mapped), str(parsed))
    return (str(parsed),)


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
