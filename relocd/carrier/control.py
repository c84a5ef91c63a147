"""What the daemon and a carrier say to each other, as values and as JSON.

Each message is one datagram on a unix SOCK_SEQPACKET socket: a JSON object whose ``do`` (daemon to carrier)
or ``event`` (carrier to daemon) names it, with exactly the fields of its class. Descriptors travel beside a
command (SCM_RIGHTS); each command says how many belong to it, and in which order. Pure: no sockets here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, ClassVar, Final

from attrs import Attribute, asdict, field, fields, frozen

from relocd.errors import ProtocolError
from relocd.pages.choice import LEVELS, Compression
from relocd.pages.limits import CHANNELS_MAX, LANES_MAX
from relocd.pages.stream_format import StreamFormat
from relocd.printable import printable

DATAGRAM_BYTES_MAX: Final = 64 << 10
"""Longest message, either way."""
FILES_MAX: Final = 16
"""Boot files of one relocation; a kernel and a ramdisk are two."""
DESCRIPTORS_MAX: Final = LANES_MAX + FILES_MAX

_COUNT_MAX: Final = (1 << 63) - 1
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_CERTIFICATE: Final = re.compile(r"([0-9a-f]{2}){1,2048}")
_DIGEST: Final = re.compile(r"[0-9a-f]{32}")


def _count(_: object, attribute: Attribute[int], value: object) -> None:
    if type(value) is not int or not 0 <= value <= _COUNT_MAX:
        raise ValueError(f"{attribute.name} must be a whole number, not {value!r:.80}")


def _lanes(_: object, attribute: Attribute[int], value: object) -> None:
    if type(value) is not int or not 1 <= value <= LANES_MAX:
        raise ValueError(f"{attribute.name} must be 1 to {LANES_MAX}, not {value!r:.80}")


def _channels(_: object, attribute: Attribute[int], value: object) -> None:
    if type(value) is not int or not 0 <= value <= CHANNELS_MAX:
        raise ValueError(f"{attribute.name} must be 0 to {CHANNELS_MAX}, not {value!r:.80}")


def _text(_: object, attribute: Attribute[str], value: object) -> None:
    if type(value) is not str:
        raise ValueError(f"{attribute.name} must be text, not {value!r:.80}")


def _shown(value: object) -> object:
    """A text for people. A carrier may be in a stranger's hands."""
    return printable(value) if isinstance(value, str) else value


def _sha256(_: object, attribute: Attribute[str], value: object) -> None:
    if type(value) is not str or not _SHA256.fullmatch(value):
        raise ValueError(f"{attribute.name} must be 64 lower-case hex digits")


def _certificate(_: object, attribute: Attribute[str], value: object) -> None:
    if type(value) is not str or not _CERTIFICATE.fullmatch(value):
        raise ValueError(f"{attribute.name} must be a certificate in lower-case hex digits")


def _digest(_: object, attribute: Attribute[str], value: object) -> None:
    if type(value) is not str or not _DIGEST.fullmatch(value):
        raise ValueError(f"{attribute.name} must be 32 lower-case hex digits")


@frozen
class FileSpec:
    """A boot file as both ends agreed on it: its size in bytes and its SHA-256 in lower-case hex."""

    size_bytes: int = field(validator=_count)
    sha256: str = field(validator=_sha256)


def _files(value: object) -> tuple[FileSpec, ...]:
    if not isinstance(value, list | tuple) or len(value) > FILES_MAX:
        raise ValueError(f"files must be a list of at most {FILES_MAX}")
    return tuple(spec if isinstance(spec, FileSpec) else _build(FileSpec, spec) for spec in value)


@frozen
class LaneSecurity:
    """What a carrier needs to encrypt its lanes: a pair made for this relocation alone, both PEM, and the only
    certificate that the peer may show, DER in hex."""

    certificate: str = field(validator=_text)
    key: str = field(validator=_text, repr=False)
    peer: str = field(validator=_certificate)


def _security(value: object) -> LaneSecurity | None:
    return value if value is None or isinstance(value, LaneSecurity) else _build(LaneSecurity, value)


def _levels(value: object) -> tuple[int, ...]:
    if not isinstance(value, list | tuple) or len(value) != len(LEVELS):
        raise ValueError(f"level_bytes must be a list of {len(LEVELS)}, not {value!r:.80}")
    if not all(type(count) is int and 0 <= count <= _COUNT_MAX for count in value):
        raise ValueError(f"level_bytes must be whole numbers, not {value!r:.80}")
    return tuple(value)


# -- daemon to carrier ----------------------------------------------------------------------------------


def _room_for_main(lanes: int, channels: int) -> None:
    if channels >= lanes:
        raise ValueError(f"{lanes} lanes leave none for the main stream beside {channels} channels")


@frozen
class Send:
    """Be the source: send these files, then wait for ``Stream``. Descriptors: the lanes, then one readable
    per file. The last ``channels`` lanes each have a channel of the hypervisor to themselves."""

    lanes: int = field(validator=_lanes)
    compression: Compression = field(default=Compression.AUTO, converter=Compression)
    files: tuple[FileSpec, ...] = field(default=(), converter=_files)
    security: LaneSecurity | None = field(default=None, converter=_security)
    stream_format: StreamFormat = field(default=StreamFormat.QEMU, converter=StreamFormat)
    channels: int = field(default=0, validator=_channels)

    def __attrs_post_init__(self) -> None:
        _room_for_main(self.lanes, self.channels)

    @property
    def descriptors(self) -> int:
        """How many descriptors travel beside it."""
        return self.lanes + len(self.files)


@frozen
class Receive:
    """Be the target. Descriptors: the lanes, then one writable per file, each empty.

    ``stream_bytes_max`` limits the hypervisor's stream, channels included, 0 does not. ``channels`` as in Send.
    """

    lanes: int = field(validator=_lanes)
    files: tuple[FileSpec, ...] = field(default=(), converter=_files)
    stream_bytes_max: int = field(default=0, validator=_count)
    security: LaneSecurity | None = field(default=None, converter=_security)
    stream_format: StreamFormat = field(default=StreamFormat.QEMU, converter=StreamFormat)
    channels: int = field(default=0, validator=_channels)

    def __attrs_post_init__(self) -> None:
        _room_for_main(self.lanes, self.channels)

    @property
    def descriptors(self) -> int:
        """How many descriptors travel beside it."""
        return self.lanes + len(self.files)


@frozen
class Stream:
    """Here is the hypervisor: start to move its stream. Descriptors: this side's ends of the stream socket and of
    each channel."""

    channels: int = field(default=0, validator=_channels)

    @property
    def descriptors(self) -> int:
        """How many descriptors travel beside it."""
        return 1 + self.channels


@frozen
class Memory:
    """Place pages of ``block`` straight into the guest's memory; target only, before ``Stream``.

    Descriptor: a file to write, in which the memory begins at ``begin``.
    """

    block: str = field(validator=_text)
    begin: int = field(validator=_count)
    size_bytes: int = field(validator=_count)

    descriptors: ClassVar[int] = 1


@frozen
class AskDigest:
    """What is the digest of all that was moved so far? On the target: written, or being written, to the hypervisor.

    So it can be asked as soon as the hypervisor says that it has loaded everything.
    """

    descriptors: ClassVar[int] = 0


@frozen
class Limit:
    """Put at most this many bytes per second on the lanes from now on; 0 lifts the limit."""

    bytes_per_s: int = field(validator=_count)

    descriptors: ClassVar[int] = 0


@frozen
class Quit:
    """End now, in good order: everything that mattered is done."""

    descriptors: ClassVar[int] = 0


Command = Send | Receive | Memory | Stream | AskDigest | Limit | Quit


# -- carrier to daemon ----------------------------------------------------------------------------------


@frozen
class CarrierReady:
    """Started and without privileges; commands are read from now on."""


@frozen
class CarrierProgress:
    """Counters since the start. ``wire_bytes`` counts lanes, frames and all; ``stream_bytes`` the
    hypervisor's stream.

    ``saved_zero_bytes``: content of zero pages, which are only counted; ``saved_compression_bytes``: what
    zstd took off. Known to the source only: ``level_bytes``, content by the level it travelled at, in the order of
    ``pages.choice.LEVELS``; ``dense_bytes``, the part of it that went as it is because it, or what came just before
    it, did not shrink.
    """

    wire_bytes: int = field(default=0, validator=_count)
    stream_bytes: int = field(default=0, validator=_count)
    pages: int = field(default=0, validator=_count)
    zero_pages: int = field(default=0, validator=_count)
    saved_zero_bytes: int = field(default=0, validator=_count)
    saved_compression_bytes: int = field(default=0, validator=_count)
    dense_bytes: int = field(default=0, validator=_count)
    level_bytes: tuple[int, ...] = field(default=(0,) * len(LEVELS), converter=_levels)


@frozen
class CarrierFile:
    """On the target: the file at ``index`` is complete and has the size and SHA-256 that were agreed on."""

    index: int = field(validator=_count)


@frozen
class CarrierFilesDone:
    """All files are complete (target) or handed to the lanes (source)."""


@frozen
class Totals:
    """What was moved: bytes of the hypervisor's stream, batches they came in, digest as 32 hex digits."""

    stream_bytes: int = field(validator=_count)
    batches: int = field(validator=_count)
    digest: str = field(validator=_digest)

    @property
    def told(self) -> str:
        """For people."""
        return f"{self.stream_bytes} bytes in {self.batches} batches with the digest {self.digest}"


def _totals(value: object) -> Totals:
    return value if isinstance(value, Totals) else _build(Totals, value)


def _counters(value: object) -> CarrierProgress:
    return value if isinstance(value, CarrierProgress) else _build(CarrierProgress, value)


@frozen
class CarrierDigest:
    """The answer to ``AskDigest``."""

    totals: Totals = field(converter=_totals)


@frozen
class CarrierEnded:
    """The stream ended in good order. Source: the hypervisor closed it and all is handed to the lanes, the
    END frame last; whether the hypervisor was content is for its driver to say. Target: all is written to the
    hypervisor, and size and digest are what the source announced. The return path is still relayed after
    this."""

    totals: Totals = field(converter=_totals)
    counters: CarrierProgress = field(converter=_counters)


@frozen
class CarrierFailed:
    """The relocation cannot go on; the carrier has closed everything and exits. ``code`` is one of
    relocd.errors."""

    code: str = field(validator=_text)
    text: str = field(validator=_text, converter=_shown)


Event = (
    CarrierReady
    | CarrierProgress
    | CarrierFile
    | CarrierFilesDone
    | CarrierDigest
    | CarrierEnded
    | CarrierFailed
)

_COMMANDS: Final[Mapping[str, type[Command]]] = {
    "send": Send,
    "receive": Receive,
    "memory": Memory,
    "stream": Stream,
    "digest": AskDigest,
    "limit": Limit,
    "quit": Quit,
}
_EVENTS: Final[Mapping[str, type[Event]]] = {
    "ready": CarrierReady,
    "progress": CarrierProgress,
    "file": CarrierFile,
    "files-done": CarrierFilesDone,
    "digest": CarrierDigest,
    "ended": CarrierEnded,
    "failed": CarrierFailed,
}
_VERBS: Final = {cls: verb for verb, cls in _COMMANDS.items()}
_NAMES: Final = {cls: name for name, cls in _EVENTS.items()}


def dump_command(command: Command) -> bytes:
    """The datagram of a command."""
    return _dump("do", _VERBS[type(command)], command)


def dump_event(event: Event) -> bytes:
    """The datagram of an event."""
    return _dump("event", _NAMES[type(event)], event)


def parse_command(datagram: bytes) -> Command:
    """Read a command. Raises ProtocolError that names what is wrong."""
    command: Command = _parse(datagram, "do", _COMMANDS)
    return command


def parse_event(datagram: bytes) -> Event:
    """Read an event. Raises ProtocolError that names what is wrong."""
    event: Event = _parse(datagram, "event", _EVENTS)
    return event


def _dump(key: str, name: str, message: Any) -> bytes:
    return json.dumps({key: name} | asdict(message)).encode()


def _parse(datagram: bytes, key: str, table: Mapping[str, type[Any]]) -> Any:
    if len(datagram) > DATAGRAM_BYTES_MAX:
        raise ProtocolError(f"a control message is longer than {DATAGRAM_BYTES_MAX} bytes")
    try:
        given = json.loads(datagram)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"a control message is not JSON: {error}") from None
    name = given.pop(key, None) if isinstance(given, dict) else None
    if not isinstance(name, str) or name not in table:
        raise ProtocolError(f"a control message has no known '{key}': {name!r:.80}")
    try:
        return _build(table[name], given)
    except (ValueError, TypeError) as error:
        raise ProtocolError(f"control message '{name}': {error}") from None


def _build(cls: type[Any], given: object) -> Any:
    if not isinstance(given, dict):
        raise ValueError(f"an object is needed, not {given!r:.80}")
    wanted = [attribute.name for attribute in fields(cls)]
    if set(given) != set(wanted):
        raise ValueError(f"fields must be {wanted}, not {list(given)!r:.200}")
    return cls(**given)
