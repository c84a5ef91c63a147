"""How relocd names what it adds to the host's network: other programs can tell our devices by it. Pure."""

from __future__ import annotations

import hashlib
from uuid import UUID

from relocd.domain.rules import MAX_VIFS

_PREFIX = "rl"
_TAG_DIGITS = 4
_DOMAIN_DIGITS = 8  # with prefix, tag and index exactly IFNAMSIZ - 1 = 15 characters (linux/if.h)


def instance_tag(run_dir: str) -> str:
    """Four hexadecimal digits that tell the daemons of one machine apart, by their run directories.

    Without them two daemons on one machine would sweep away each other's taps.
    """
    return hashlib.sha256(run_dir.encode()).hexdigest()[:_TAG_DIGITS]


def tap_prefix(tag: str) -> str:
    """What the names of all taps of one daemon begin with."""
    return _PREFIX + tag


def tap_name(tag: str, domain: UUID, index: int) -> str:
    """Name of the tap behind a domain's interface ``index``: 15 characters, all that the kernel allows.

    The domain's part is a hash of its UUID, since people number UUIDs by hand and let only the end differ.
    """
    if not 0 <= index < MAX_VIFS:
        raise ValueError(f"interface {index}: a domain has at most {MAX_VIFS}")
    return f"{tap_prefix(tag)}{hashlib.sha256(domain.bytes).hexdigest()[:_DOMAIN_DIGITS]}{index:x}"


def tap_mac(guest_mac: str) -> str:
    """The tap's own address: the guest's with ``fe`` in front.

    A bridge without a fixed address takes the lowest one of its ports; ``fe`` keeps that from being a tap's.
    """
    return "fe" + guest_mac.lower()[2:]
