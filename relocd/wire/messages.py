"""The messages of the dialogue. Each is a value that cannot be built wrong from a peer's bytes.

    source                                    target
    (hello ...)                       ->
                                      <-      (hello ...)
    (probe ...)                       ->                         optional: are our bridges one segment?
                                      <-      (probing ...)      then frames from bridge to bridge
    (propose ...)                     ->
                                      <-      (accept ...), (refuse ...), or (verdict ...) to a mere question
    lane connections: (lane ...)      ->
                                      <-      (ready)            then binary frames only
                                      <-      (receiving)        boot files are there, the hypervisor listens
    (progress ...)                    <->     (progress ...)
    (switchover)                      ->                         the source has paused the domain
                                      <-      (prepared ...)     loaded, paused, checked
    (commit)                          ->                         the decision is on the source's disk
                                      <-      (resumed ...)      on the target's disk too; the domain runs
    (inquire ...)                     <->     (standing ...)     after a lost connection: what was decided?
    (abort ...)                       <->     (abort ...)        before the commit only

    a connection of its own: hello, hello, then
    (measure ...)                     ->
                                      <-      (ready)            then bytes without meaning
                                      <-      (measured ...)

``encode`` and ``decode`` are each other's opposite; the table at the end is the whole protocol.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from uuid import UUID

from attrs import field, frozen

from relocd.domain.record import from_sxp, to_sxp
from relocd.errors import ProtocolError
from relocd.model import DomainConfig
from relocd.pages.limits import CHANNELS_MAX
from relocd.preflight.facts import SourceFacts
from relocd.preflight.result import Check
from relocd.wire.checks import check_rows, read_checks
from relocd.wire.decisions import Decision as Decision
from relocd.wire.decisions import Intent as Intent
from relocd.wire.facts import read_source, source_fields
from relocd.wire.fields import Fields, checked, read_line, to_number, write_line
from relocd.wire.forms import Form, Rows, flag
from relocd.wire.measuring import MAX_MEASURE_BYTES as MAX_MEASURE_BYTES
from relocd.wire.measuring import MEASURING_FORMS
from relocd.wire.measuring import Measure as Measure
from relocd.wire.measuring import Measured as Measured
from relocd.wire.network import NETWORK_FORMS, MakeTunnel, Probe, Probing, TunnelMade, TunnelUse, TunnelUsed

#: Protocol versions spoken here, lowest and highest. One version back keeps working.
PROTOCOL_MIN = 1
PROTOCOL_MAX = 1

#: Features this version offers. Both sides use those that both named.
FEATURES: tuple[str, ...] = ("boot-files", "l2-probe", "lanes", "measure", "zstd")

MAX_LANES = 16
MAX_SIZE_BYTES = 1 << 50
MAX_WAIT_US = 1 << 40

_CERTIFICATE = re.compile(r"([0-9a-f]{2}){1,2048}")


@frozen
class Help:
    """A person with netcat."""


@frozen
class ClassicReceive:
    """What xend's xm sends first; answered with an error that names what to do."""


@frozen
class Hello:
    """First message of both sides. ``port`` is the sender's own relocation port, for later questions."""

    software: str
    host: str
    port: int
    protocol_min: int = PROTOCOL_MIN
    protocol_max: int = PROTOCOL_MAX
    features: tuple[str, ...] = FEATURES


@frozen
class Propose:
    """The source describes the domain and asks for a place.

    ``lanes`` is the number it would like, ``channels`` that of the hypervisor's own channels, each of which would
    have a lane besides one for the main stream; ``paused`` says that the domain is paused now and must arrive so;
    ``source`` is for the target's checks. ``lane_certificate`` is what its lanes will show if the dialogue is over
    TLS: DER, in hex.
    """

    relocation: UUID
    intent: Intent
    live: bool
    paused: bool
    lanes: int
    domain: DomainConfig
    source: SourceFacts = field(factory=SourceFacts)
    lane_certificate: str = ""
    channels: int = 0


@frozen
class Accept:
    """There is a place, and it is reserved. ``needed`` lists digests of boot files that must come along.

    ``lane_certificate`` as in Propose. ``lanes`` are all that are to be opened: one more than ``channels`` if there
    are any.
    """

    relocation: UUID
    token: str
    lanes: int
    needed: tuple[str, ...]
    checks: tuple[Check, ...]
    lane_certificate: str = ""
    channels: int = 0


@frozen
class Refuse:
    """No, with all reasons at once; the checks that failed."""

    checks: tuple[Check, ...]


@frozen
class Verdicts:
    """The answer to a proposal with intent ``check``."""

    checks: tuple[Check, ...]


@frozen
class Lane:
    """First and only line of a lane connection."""

    relocation: UUID
    token: str
    number: int


@frozen
class Ready:
    """The lane is taken; binary frames follow."""


@frozen
class Receiving:
    """The target's hypervisor waits for the stream."""


@frozen
class ProgressNote:
    """Sent by both sides once a second; the other's silence means a dead link."""

    round: int
    stream_bytes: int
    remaining_bytes: int


@frozen
class Switchover:
    """The source has paused the domain; what follows is the last of it."""


@frozen
class Prepared:
    """The target has loaded all and holds it paused. The digest covers the whole stream in order."""

    digest: str
    stream_bytes: int


@frozen
class Commit:
    """The target owns the domain now."""


@frozen
class Resumed:
    """The domain runs on the target (or is paused there, as it was): for ``ran_us`` already when this was sent.

    ``heard_us``: so long before that its first frame was seen, None if none was yet.
    """

    ran_us: int = 0
    heard_us: int | None = None


@frozen
class Inquire:
    """What do you know about this relocation? The token proves that the asker took part in it."""

    relocation: UUID
    token: str


@frozen
class Standing:
    """The answer to Inquire."""

    relocation: UUID
    decision: Decision


@frozen
class Abort:
    """The sender has ended the relocation. Only before the commit."""

    code: str
    text: str


@frozen
class Problem:
    """The peer made a mistake; the connection ends. xend's form of an error, so that old clients show it."""

    code: str
    text: str


Message = (
    Help
    | ClassicReceive
    | Hello
    | Propose
    | Accept
    | Refuse
    | Verdicts
    | Lane
    | Ready
    | Receiving
    | ProgressNote
    | Switchover
    | Prepared
    | Commit
    | Resumed
    | Inquire
    | Standing
    | Measure
    | Measured
    | Probe
    | Probing
    | MakeTunnel
    | TunnelMade
    | TunnelUse
    | TunnelUsed
    | Abort
    | Problem
)


def encode(message: Message) -> bytes:
    """The message as one line, newline included."""
    head, rows, _ = _FORMS[type(message)]
    return write_line(head, rows(message))


def decode(line: bytes) -> Message:
    """Read one line. Raises ProtocolError for all that is not a message of this protocol."""
    head, fields = read_line(line)
    form = _BY_HEAD.get(head)
    if form is None:
        raise ProtocolError(f"unknown message '{head[:40]}'", hint="Send 'help' for the list.")
    message: Message = form(fields)
    return message


def known_heads() -> tuple[str, ...]:
    """The names of all messages, for ``help``."""
    return tuple(_BY_HEAD)


def agree(ours: Hello, theirs: Hello) -> int:
    """The protocol version both will use, or ProtocolError."""
    version = min(ours.protocol_max, theirs.protocol_max)
    if version < max(ours.protocol_min, theirs.protocol_min):
        raise ProtocolError(
            f"no common protocol version: here {ours.protocol_min}..{ours.protocol_max}, "
            f"peer {theirs.protocol_min}..{theirs.protocol_max} ({theirs.software})",
            hint="Upgrade the older of the two hosts; one version back keeps working.",
        )
    return version


def _channels_row(channels: int) -> Rows:
    return (("channels", channels),) if channels else ()


def _certificate_row(certificate: str) -> Rows:
    return (("lane-certificate", certificate),) if certificate else ()


def _hello(f: Fields) -> Hello:
    low, high = (to_number(text, 1, 10_000, "protocol version") for text in f.pair("protocol"))
    return Hello(
        f.text("software"), f.text("host"), f.number("port", 0, 65535), low, high, f.texts("features", 64)
    )


def _propose(f: Fields) -> Propose:
    f.check_mandatory(
        ("relocation", "intent", "live", "paused", "lanes", "domain", "lane-certificate", "channels")
    )
    return Propose(
        f.uuid("relocation"),
        f.word("intent", Intent),
        f.flag("live"),
        f.flag("paused"),
        f.number("lanes", 1, MAX_LANES),
        checked(lambda: from_sxp(f.node("domain"))),
        read_source(f),
        f.exact("lane-certificate", _CERTIFICATE, ""),
        f.number("channels", 0, CHANNELS_MAX, 0),
    )


def _accept(f: Fields) -> Accept:
    needed = f.texts("needed", 8)
    return Accept(
        f.uuid("relocation"),
        f.hex("token"),
        f.number("lanes", 1, MAX_LANES),
        needed,
        read_checks(f),
        f.exact("lane-certificate", _CERTIFICATE, ""),
        f.number("channels", 0, CHANNELS_MAX, 0),
    )


def _progress(f: Fields) -> ProgressNote:
    return ProgressNote(
        f.number("round", 0, 1 << 31),
        f.number("stream-bytes", 0, MAX_SIZE_BYTES),
        f.number("remaining-bytes", 0, MAX_SIZE_BYTES),
    )


def _resumed_rows(message: Resumed) -> Rows:
    ran: Rows = (("ran-us", message.ran_us),) if message.ran_us else ()
    return ran if message.heard_us is None else (*ran, ("heard-us", message.heard_us))


def _resumed(f: Fields) -> Resumed:
    heard_us = f.number("heard-us", 0, MAX_WAIT_US) if f.has("heard-us") else None
    return Resumed(f.number("ran-us", 0, MAX_WAIT_US, 0), heard_us)


#: Message class -> (head, its fields for the wire, its reader).
_FORMS: dict[type, Form] = {
    **MEASURING_FORMS,
    **NETWORK_FORMS,
    Help: ("help", lambda m: (), lambda f: Help()),
    ClassicReceive: ("receive", lambda m: (), lambda f: ClassicReceive()),
    Hello: (
        "hello",
        lambda m: (
            ("software", m.software),
            ("host", m.host),
            ("port", m.port),
            ("protocol", m.protocol_min, m.protocol_max),
            ("features", *m.features),
        ),
        _hello,
    ),
    Propose: (
        "propose",
        lambda m: (
            ("relocation", str(m.relocation)),
            ("intent", m.intent.value),
            ("live", flag(m.live)),
            ("paused", flag(m.paused)),
            ("lanes", m.lanes),
            ("domain", to_sxp(m.domain)),
            *source_fields(m.source),
            *_certificate_row(m.lane_certificate),
            *_channels_row(m.channels),
        ),
        _propose,
    ),
    Accept: (
        "accept",
        lambda m: (
            ("relocation", str(m.relocation)),
            ("token", m.token),
            ("lanes", m.lanes),
            ("needed", *m.needed),
            ("checks", *check_rows(m.checks)),
            *_certificate_row(m.lane_certificate),
            *_channels_row(m.channels),
        ),
        _accept,
    ),
    Refuse: ("refuse", lambda m: (("checks", *check_rows(m.checks)),), lambda f: Refuse(read_checks(f))),
    Verdicts: (
        "verdict",
        lambda m: (("checks", *check_rows(m.checks)),),
        lambda f: Verdicts(read_checks(f)),
    ),
    Lane: (
        "lane",
        lambda m: (("relocation", str(m.relocation)), ("token", m.token), ("number", m.number)),
        lambda f: Lane(f.uuid("relocation"), f.hex("token"), f.number("number", 0, MAX_LANES - 1)),
    ),
    Ready: ("ready", lambda m: (), lambda f: Ready()),
    Receiving: ("receiving", lambda m: (), lambda f: Receiving()),
    ProgressNote: (
        "progress",
        lambda m: (
            ("round", m.round),
            ("stream-bytes", m.stream_bytes),
            ("remaining-bytes", m.remaining_bytes),
        ),
        _progress,
    ),
    Switchover: ("switchover", lambda m: (), lambda f: Switchover()),
    Prepared: (
        "prepared",
        lambda m: (("digest", m.digest), ("stream-bytes", m.stream_bytes)),
        lambda f: Prepared(f.hex("digest"), f.number("stream-bytes", 0, MAX_SIZE_BYTES)),
    ),
    Commit: ("commit", lambda m: (), lambda f: Commit()),
    Resumed: ("resumed", _resumed_rows, _resumed),
    Inquire: (
        "inquire",
        lambda m: (("relocation", str(m.relocation)), ("token", m.token)),
        lambda f: Inquire(f.uuid("relocation"), f.hex("token")),
    ),
    Standing: (
        "standing",
        lambda m: (("relocation", str(m.relocation)), ("decision", m.decision.value)),
        lambda f: Standing(f.uuid("relocation"), f.word("decision", Decision)),
    ),
    Abort: (
        "abort",
        lambda m: (("code", m.code), ("text", m.text)),
        lambda f: Abort(f.text("code"), f.text("text")),
    ),
    Problem: (
        "err",
        lambda m: (("type", m.code), ("value", m.text)),
        lambda f: Problem(f.text("type"), f.text("value")),
    ),
}

_BY_HEAD: dict[str, Callable[[Fields], Message]] = {
    **{head: reader for head, _, reader in _FORMS.values()},
    "sslreceive": lambda _: ClassicReceive(),
}
