"""Lane frames: a fixed header, then a payload. ``docs/page-stream.md`` has the layout in words.

Everything a peer says is checked here before memory is taken for it: the header alone decides, by a table,
whether a payload of that kind, codec and size may exist. Checksums find damage (a flipped bit, a frame cut
short), not malice; that a frame comes from the right peer is the business of the connection it arrives on.
"""

from __future__ import annotations

import enum
import struct
from typing import TYPE_CHECKING, Final

import xxhash
from attrs import frozen

from relocd.errors import StreamError
from relocd.pages.limits import (
    ABORT_BYTES_MAX,
    BATCH_BYTES_MAX,
    CHANNEL_BYTES_MAX,
    CHUNK_BYTES_MAX,
    RETURN_BYTES_MAX,
)

if TYPE_CHECKING:
    from relocd.pages.items import Buffer

MAGIC: Final = b"rlpF"
VERSION: Final = 1

_FIELDS: Final = struct.Struct("!4sBBBBQIIQ")
_CHECKSUM: Final = struct.Struct("!Q")
HEADER_BYTES: Final = _FIELDS.size + _CHECKSUM.size


class Kind(enum.IntEnum):
    """What a frame carries. Zero is invalid on purpose: cleared memory must not look like a frame."""

    BATCH = 1  # items of the hypervisor's stream
    RETURN = 2  # bytes of the hypervisor's return path, target to source; empty: it ended
    FILE = 3  # a piece of a boot file
    FILE_END = 4  # the boot file is complete
    END = 5  # the stream is complete: totals and digest
    ABORT = 6  # the sender gives up: the reason as text; sequence 0
    CHANNEL = 7  # bytes of the channel of the hypervisor that has this lane to itself; empty: it ended


class Codec(enum.IntEnum):
    """How a payload is written. Zero is "as it is", since most frames are."""

    RAW = 0
    ZSTD = 1


_FILE_END: Final = struct.Struct("!IQ")
_END: Final = struct.Struct("!QQ16s")

_SIZES: Final[dict[Kind, tuple[int, int]]] = {
    Kind.BATCH: (1, BATCH_BYTES_MAX),
    Kind.RETURN: (0, RETURN_BYTES_MAX),
    Kind.FILE: (1, CHUNK_BYTES_MAX),
    Kind.FILE_END: (_FILE_END.size, _FILE_END.size),
    Kind.END: (_END.size, _END.size),
    Kind.ABORT: (0, ABORT_BYTES_MAX),
    Kind.CHANNEL: (0, CHANNEL_BYTES_MAX),
}
_COMPRESSIBLE: Final = frozenset({Kind.BATCH})


@frozen
class Header:
    """A frame's header that passed all checks. Sizes in bytes; ``checksum`` is of the payload as on the wire."""

    kind: Kind
    codec: Codec
    sequence: int
    decoded_bytes: int
    wire_bytes: int
    checksum: int


def pack(kind: Kind, sequence: int, payload: Buffer, *, decoded_bytes: int | None = None) -> bytes:
    """The header for ``payload`` as it goes on the wire; ``decoded_bytes`` says that it is compressed."""
    codec = Codec.RAW if decoded_bytes is None else Codec.ZSTD
    size = len(payload)
    decoded = size if decoded_bytes is None else decoded_bytes
    fields = _FIELDS.pack(MAGIC, VERSION, kind, codec, 0, sequence, decoded, size, _checksum(payload))
    return fields + _CHECKSUM.pack(_checksum(fields))


def unpack(header: Buffer) -> Header:
    """Check a header of HEADER_BYTES. Raises StreamError with the reason; needs no payload.

    The header has a checksum of its own, since a receiver that believes a damaged size waits for ever.
    """
    magic, version, kind, codec, reserved, sequence, decoded, wire, checksum = _FIELDS.unpack_from(header)
    if magic != MAGIC:
        raise StreamError("a lane carries something that is not a frame")
    if _checksum(memoryview(header)[: _FIELDS.size]) != _CHECKSUM.unpack_from(header, _FIELDS.size)[0]:
        raise StreamError("the header of a frame was damaged on its way: its checksum is wrong")
    if version != VERSION:
        raise StreamError(f"a frame has version {version}, only {VERSION} is known")
    if reserved:
        raise StreamError("a frame has reserved bits set")
    if kind not in _KINDS or codec not in _CODECS:
        raise StreamError(f"a frame has unknown kind {kind} or codec {codec}")
    found = Header(_KINDS[kind], _CODECS[codec], sequence, decoded, wire, checksum)
    _check_sizes(found)
    return found


def verify(header: Header, payload: Buffer) -> None:
    """Check the payload against its header. Raises StreamError."""
    if len(payload) != header.wire_bytes or _checksum(payload) != header.checksum:
        raise StreamError(f"frame {header.sequence} was damaged on its way: its checksum is wrong")


@frozen
class FileEnd:
    """Payload of FILE_END: which file (counting from 0, in the order agreed on) and how many bytes it had."""

    index: int
    size_bytes: int

    def to_bytes(self) -> bytes:
        """The payload."""
        return _FILE_END.pack(self.index, self.size_bytes)

    @classmethod
    def from_bytes(cls, payload: Buffer) -> FileEnd:
        """From a payload whose size ``unpack`` has checked."""
        return cls(*_FILE_END.unpack(payload))


@frozen
class End:
    """Payload of END: bytes of the hypervisor's stream, batches they came in, and the stream's digest."""

    stream_bytes: int
    batches: int
    digest: bytes

    def to_bytes(self) -> bytes:
        """The payload."""
        return _END.pack(self.stream_bytes, self.batches, self.digest)

    @classmethod
    def from_bytes(cls, payload: Buffer) -> End:
        """From a payload whose size ``unpack`` has checked."""
        return cls(*_END.unpack(payload))


def abort_payload(reason: str) -> bytes:
    """The payload of an ABORT, cut to what is allowed."""
    return reason.encode("utf-8", "replace")[:ABORT_BYTES_MAX]


def abort_reason(payload: Buffer) -> str:
    """The text of an ABORT, made harmless for a log: the peer chose these bytes."""
    text = bytes(payload).decode("utf-8", "replace")
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


_KINDS: Final = {int(kind): kind for kind in Kind}
_CODECS: Final = {int(codec): codec for codec in Codec}


def _check_sizes(header: Header) -> None:
    least, most = _SIZES[header.kind]
    if not least <= header.decoded_bytes <= most:
        raise StreamError(
            f"a {header.kind.name} frame announces {header.decoded_bytes} bytes, not {least} to {most}"
        )
    if header.codec is Codec.RAW and header.wire_bytes != header.decoded_bytes:
        raise StreamError("an uncompressed frame announces two different sizes")
    if header.codec is Codec.ZSTD:
        if header.kind not in _COMPRESSIBLE:
            raise StreamError(f"a {header.kind.name} frame is never compressed")
        if not 0 < header.wire_bytes < header.decoded_bytes:
            raise StreamError("a compressed frame is not smaller than its content")
    if header.kind is Kind.ABORT and header.sequence:
        raise StreamError("an ABORT frame has no place in the sequence")


def _checksum(data: Buffer) -> int:
    return int(xxhash.xxh3_64_intdigest(data))
