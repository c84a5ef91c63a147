"""The messages by which two hosts find out whether their bridges are one segment, and join them if they are not."""

from __future__ import annotations

import enum
import re
from ipaddress import ip_network

from attrs import frozen

from relocd.config.model import L2Mode
from relocd.domain.rules import BRIDGE, MAX_VIFS
from relocd.errors import ProtocolError
from relocd.segment.probe import NONCE_BYTES
from relocd.segment.proof import BridgeEnd, EndState
from relocd.segment.tunnel import VNI_MAX
from relocd.wire.fields import Fields
from relocd.wire.forms import Form, Rows, flag

#: Of one bridge, at most.
MAX_SUBNETS = 16

_NONCE = re.compile(rf"[0-9a-f]{{{2 * NONCE_BYTES}}}")
_IDENTITY = re.compile(r"([0-9a-f]{32})?")


@frozen
class Probe:
    """The source is about to send probe frames on these bridges, keyed with both sides' nonces (hex).

    ``mode`` is what its host does about bridges that are not one segment.
    """

    nonce: str
    mode: L2Mode
    bridges: tuple[BridgeEnd, ...]


@frozen
class Probing:
    """The target answers such frames from now on, on those of the bridges that are ready."""

    nonce: str
    mode: L2Mode
    bridges: tuple[BridgeEnd, ...]


class End(enum.StrEnum):
    """How the making of a tunnel's end went."""

    MADE = "made"
    TAKEN = "taken"  # another tunnel there has that number
    UNABLE = "unable"


@frozen
class MakeTunnel:
    """Make your end of a tunnel between our bridges of this name: VXLAN with that number and UDP port."""

    bridge: str
    vni: int
    port: int


@frozen
class TunnelMade:
    """The answer to MakeTunnel."""

    end: End
    text: str = ""


@frozen
class TunnelUse:
    """Do domains on your side need the tunnel of that number between us?"""

    vni: int


@frozen
class TunnelUsed:
    """The answer to TunnelUse."""

    needed: bool


def read_bridge(name: str) -> str:
    """The name of a bridge, or ProtocolError."""
    if not BRIDGE.fullmatch(name) or name in (".", ".."):
        raise ProtocolError(f"'{name[:40]}' cannot be the name of a bridge")
    return name


def _end_row(end: BridgeEnd) -> tuple[str, ...]:
    return (end.name, end.state.value, end.identity, " ".join(end.subnets[:MAX_SUBNETS]), end.text)


def _read_end(row: tuple[str, ...]) -> BridgeEnd:
    name, state, identity, subnets, text = row
    if state not in set(EndState) or not _IDENTITY.fullmatch(identity):
        raise ProtocolError(f"what is said of bridge '{name}' cannot be understood")
    return BridgeEnd(read_bridge(name), EndState(state), identity, _read_subnets(subnets), text)


def _read_subnets(text: str) -> tuple[str, ...]:
    words = text.split()
    try:
        networks = tuple(str(ip_network(word)) for word in words)
    except ValueError:
        raise ProtocolError("a subnet cannot be understood") from None
    if len(networks) > MAX_SUBNETS:
        raise ProtocolError(f"a bridge has more than {MAX_SUBNETS} subnets")
    return networks


def _rows(message: Probe | Probing) -> Rows:
    return (
        ("nonce", message.nonce),
        ("mode", message.mode.value),
        ("bridges", *map(_end_row, message.bridges)),
    )


def _read(fields: Fields) -> tuple[str, L2Mode, tuple[BridgeEnd, ...]]:
    ends = tuple(_read_end(row) for row in fields.records("bridges", 5, MAX_VIFS))
    if len({end.name for end in ends}) < len(ends):
        raise ProtocolError(f"'{fields.message}' names a bridge twice")
    return fields.exact("nonce", _NONCE), fields.word("mode", L2Mode), ends


NETWORK_FORMS: dict[type, Form] = {
    Probe: ("probe", _rows, lambda f: Probe(*_read(f))),
    Probing: ("probing", _rows, lambda f: Probing(*_read(f))),
    MakeTunnel: (
        "make-tunnel",
        lambda m: (("bridge", m.bridge), ("vni", m.vni), ("port", m.port)),
        lambda f: MakeTunnel(
            read_bridge(f.text("bridge")), f.number("vni", 1, VNI_MAX), f.number("port", 1, 65535)
        ),
    ),
    TunnelMade: (
        "tunnel-made",
        lambda m: (("end", m.end.value), ("text", m.text)),
        lambda f: TunnelMade(f.word("end", End), f.text("text", "")),
    ),
    TunnelUse: ("tunnel-use", lambda m: (("vni", m.vni),), lambda f: TunnelUse(f.number("vni", 1, VNI_MAX))),
    TunnelUsed: (
        "tunnel-used",
        lambda m: (("needed", flag(m.needed)),),
        lambda f: TunnelUsed(f.flag("needed")),
    ),
}
