"""What is fuzzed: for each reader of a stranger's bytes a function that must only raise what is foreseen.

A target takes any bytes. It returns if they were refused in good order, or if what was made of them holds what is
promised; whatever else it raises is a finding.
"""

from __future__ import annotations

import contextlib
import ssl
import struct
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Final, TypeVar
from uuid import UUID

import numpy as np
import xxhash
from attrs import frozen

from relocd.carrier.control import dump_event, parse_event
from relocd.config.load import load_config
from relocd.domain.file import parse_domain_file
from relocd.domain.record import from_sxp, to_sxp
from relocd.errors import ConfigError, ProtocolError, RelocdError, StreamError
from relocd.pages import frames
from relocd.pages.batch import decode_batch
from relocd.pages.decoder import Decoder
from relocd.pages.encoder import Encoder
from relocd.pages.frames import HEADER_BYTES, Codec, End, FileEnd, Kind, abort_reason
from relocd.pages.items import PAGE_SIZE, Item, Octets, PageRun
from relocd.pages.limits import BATCH_BYTES_MAX
from relocd.pages.placement import Placement
from relocd.pages.qemu_decoder import QemuDecoder
from relocd.pages.qemu_encoder import QemuEncoder
from relocd.pages.squeeze import decompress
from relocd.pages.xen_decoder import XenDecoder
from relocd.pages.xen_encoder import XenEncoder
from relocd.sxp import dumps, parse, parse_one
from relocd.tls.authority import issue, new_authority
from relocd.tls.channel import Channel, make_context
from relocd.wire.lines import LineCutter
from relocd.wire.messages import Lane, decode, encode
from tests.fuzz import seeds
from tests.fuzz.doorstep import visit

D = TypeVar("D", bound=Decoder)

_PIECES: Final = (1, 7, 64, 1000, 65536)
_MEMORY_BYTES: Final = 1 << 20
_SAID: Final = b"what was said"


@frozen
class Target:
    """One reader. ``words`` are what its grammar is made of, for a fuzzer that knows nothing of it."""

    run: Callable[[bytes], None]
    seeds: Callable[[], tuple[bytes, ...]]
    words: tuple[bytes, ...] = ()


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def line(data: bytes) -> None:
    """One line of the dialogue: what was understood is written so that it is understood again."""
    try:
        message = decode(data)
    except ProtocolError:
        return
    assert decode(encode(message).rstrip(b"\n")) == message


def dialogue(data: bytes) -> None:
    """Many lines, in pieces: however they are cut, the same comes out."""
    whole = _lines(data, len(data) or 1)
    for size in _PIECES:
        cut = _lines(data, size)
        assert cut[: len(whole)] == whole[: len(cut)]


def _lines(data: bytes, size: int) -> list[bytes]:
    cutter, found = LineCutter(), []
    try:
        for at in range(0, len(data), size):
            found += cutter.feed(data[at : at + size])
            assert cutter.pending <= 65536
    except ProtocolError:
        pass
    return found


def lane(data: bytes) -> None:
    """The opening of a lane: it names a relocation, a token and a number, each in its form."""
    try:
        message = decode(data)
    except ProtocolError:
        return
    if isinstance(message, Lane):
        assert 0 <= message.number < 16
        assert set(message.token) <= set("0123456789abcdef")


def door(data: bytes) -> None:
    """A whole connection to the relocation port, in pieces whose size the first byte says."""
    if data:
        visit(data[1:], _PIECES[data[0] % len(_PIECES)])


def frame(data: bytes) -> None:
    """What comes over a lane. Checksums are put right first: they are against damage, not against malice."""
    at = 0
    while at + HEADER_BYTES <= len(data):
        head = bytearray(data[at : at + HEADER_BYTES])
        at += HEADER_BYTES
        (size,) = struct.unpack_from("!I", head, 20)
        payload = data[at : at + min(size, 1 << 16)]
        struct.pack_into("!Q", head, 24, xxhash.xxh3_64_intdigest(payload))
        struct.pack_into("!Q", head, 32, xxhash.xxh3_64_intdigest(bytes(head[:32])))
        try:
            header = frames.unpack(head)
            frames.verify(header, payload)
            _payload(header, payload)
        except StreamError:
            return
        at += len(payload)


def _payload(header: frames.Header, payload: bytes) -> None:
    match header.kind:
        case Kind.BATCH if header.codec is Codec.ZSTD:
            batch(decompress(payload, header.decoded_bytes))
        case Kind.BATCH:
            batch(payload)
        case Kind.END:
            assert End.from_bytes(payload).to_bytes() == payload
        case Kind.FILE_END:
            assert FileEnd.from_bytes(payload).to_bytes() == payload
        case Kind.ABORT:
            assert abort_reason(payload).isprintable()


class _Bounded:
    """A guest's memory that notices what would go elsewhere."""

    def write(self, offset: int, contents: Octets) -> None:
        self.clear(offset, contents.size)

    def clear(self, offset: int, size: int) -> None:
        assert offset >= 0
        assert size > 0
        assert offset + size <= _MEMORY_BYTES


def batch(data: bytes) -> None:
    """A batch: its items, the stream that is rebuilt from them, and their placement."""
    try:
        items = decode_batch(data)
    except StreamError:
        return
    encoder = QemuEncoder()
    assert len(bytes(encoder.encode(items))) == sum(map(encoder.encoded_bytes, items))
    placement = Placement("pc.ram", _MEMORY_BYTES, _Bounded())
    try:
        placement.sift(items)
        placement.sift(items)
    except StreamError:
        return


def stream(data: bytes) -> None:
    """QEMU's stream: the law, whatever the pieces; and pages only inside of blocks that were announced."""

    def check(decoder: QemuDecoder, item: Item) -> None:
        if isinstance(item, PageRun):
            assert int(item.numbers.max()) * PAGE_SIZE < decoder.blocks[item.block]

    _law(data, QemuDecoder, QemuEncoder, check)


def xen(data: bytes) -> None:
    """Xen's stream: the law, whatever the pieces."""
    _law(data, XenDecoder, XenEncoder, lambda decoder, item: None)


def _law(
    data: bytes,
    decoder_of: Callable[[], D],
    encoder_of: Callable[[], Encoder],
    check: Callable[[D, Item], None],
) -> None:
    for size in (len(data) or 1, 4099):
        decoder, encoder, rest, made = decoder_of(), encoder_of(), b"", bytearray()
        for at in range(0, len(data), size):
            piece = rest + data[at : at + size]
            items, used = decoder.decode(piece)
            made += encoder.encode(items)
            rest = piece[used:]
            for item in items:
                check(decoder, item)
        assert bytes(made) + rest == data
        assert len(rest) < 1 << 16


def zstd(data: bytes) -> None:
    """A compressed batch: never more than was announced."""
    for announced in (1, 1000, BATCH_BYTES_MAX):
        try:
            assert len(decompress(data, announced)) == announced
        except StreamError:
            continue


def tls(data: bytes) -> None:
    """A handshake and a word after it, with changes on the way: ``data`` is flights, places and changes.

    The server hears what the client said, or nothing.
    """
    client, server = (Channel(context, server_side=side) for side, context in _contexts())
    heard, said = b"", False
    with contextlib.suppress(ssl.SSLError):
        client.begin()
        for flight in range(4):
            if client.established and not said:
                client.send(_SAID)
                said = True
            heard += server.receive(_changed(client.outgoing(), data, flight))
            client.receive(server.outgoing())
    assert heard in (b"", _SAID)
    assert not heard or server.peer_certificate() == client.peer_certificate()


def _changed(out: bytes, data: bytes, flight: int) -> bytes:
    changed = bytearray(out)
    for which, place, change in zip(data[::3], data[1::3], data[2::3], strict=False):
        if which % 4 == flight and changed:
            changed[place * 131 % len(changed)] ^= change
    return bytes(changed)


def raw_tls(data: bytes) -> None:
    """Anything at all to a server that waits for TLS."""
    (_, server_context) = (context for _, context in _contexts())
    server = Channel(server_context, server_side=True)
    with contextlib.suppress(ssl.SSLError):
        assert server.receive(data) == b""
    assert not server.established


@cache
def _contexts() -> tuple[tuple[bool, ssl.SSLContext], ...]:
    authority = new_authority()
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        own = issue(authority, ["hosta"])
        texts = {"ca": authority.certificate, "own": own.certificate, "key": own.key}
        for file, text in texts.items():
            (place / file).write_text(text)
        files = [place / file for file in texts]
        return tuple((side, make_context(*files, server_side=side)) for side in (False, True))


def sxp(data: bytes) -> None:
    """S-expressions: what was read is written so that it reads the same."""
    try:
        nodes = parse(_text(data))
    except ConfigError:
        return
    for node in nodes:
        assert parse_one(dumps(node)) == node


def config(data: bytes) -> None:
    """A configuration file."""
    with contextlib.suppress(ConfigError):
        load_config(_text(data), source="fuzz")


def domain(data: bytes) -> None:
    """A domain file, of either form; what is taken can be sent to another host."""
    try:
        parsed = parse_domain_file(
            _text(data), source="fuzz", overrides={}, new_uuid=lambda: UUID(int=1), new_mac=_mac
        )
    except ConfigError:
        return
    assert from_sxp(parse_one(dumps(to_sxp(parsed.config)))) == parsed.config


def _mac() -> str:
    return "02:00:00:00:00:01"


def event(data: bytes) -> None:
    """What a carrier says to its daemon, which must not trust it more than a peer."""
    try:
        found = parse_event(data)
    except RelocdError:
        return
    assert parse_event(dump_event(found)) == found


TARGETS: Final[dict[str, Target]] = {
    "line": Target(line, seeds.lines, seeds.WORDS),
    "dialogue": Target(dialogue, seeds.dialogues, (b"\n", b"\r\n")),
    "lane": Target(lane, seeds.lane_lines, seeds.WORDS),
    "door": Target(door, seeds.visits, seeds.WORDS),
    "frame": Target(frame, seeds.lanes, (b"rlpF",)),
    "batch": Target(batch, seeds.batches, (b"pc.ram",)),
    "stream": Target(stream, seeds.streams, (b"QEVM", b"pc.ram", b"\x03ram")),
    "xen": Target(xen, seeds.xen_streams, (b"LIBXLFMT", b"XENF", b"Xen saved domain")),
    "zstd": Target(zstd, seeds.zstd_frames, (b"\x28\xb5\x2f\xfd",)),
    "tls": Target(tls, seeds.changes),
    "raw-tls": Target(raw_tls, seeds.tls_hellos),
    "sxp": Target(sxp, seeds.texts, (b"(", b")", b"'", b'"', b"\\u202e", b"\\x41", b"#")),
    "config": Target(config, seeds.configs, seeds.CONFIG_WORDS),
    "domain": Target(domain, seeds.domain_files, seeds.DOMAIN_WORDS),
    "event": Target(event, seeds.events, (b'"event"', b"null", b"-1", b"1e400")),
}
np.seterr(all="raise")
