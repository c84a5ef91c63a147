"""One bit that changes, anywhere on a lane or inside of a carrier, ends the relocation before it can be committed."""

from __future__ import annotations

import os
import select
from itertools import accumulate

import pytest

from relocd.carrier.control import CarrierEnded
from relocd.errors import StreamError
from relocd.pages import frames
from relocd.pages.digest import StreamDigest, batch_digest
from relocd.pages.frames import HEADER_BYTES, Codec, End, Header, Kind
from relocd.pages.squeeze import decompress
from tests.carrier import inprocess
from tests.carrier.carriers import read_to_end
from tests.pages.streams import StreamBuilder

PAGE = 4096
CONTENT_STEP = 7
"""Every seventh byte of an uncompressed page is tried; of everything else all are."""

Frames = list[tuple[Header, bytes]]


def page(number: int, content: bytes) -> bytes:
    """A piece of a stream: the beginning before page 0, then one page."""
    builder = StreamBuilder()
    if number:
        builder.bytes.clear()
    else:
        builder.start({"pc.ram": 16 * PAGE}).part()
    return bytes(builder.page("pc.ram", number, content).bytes)


@pytest.fixture(scope="module")
def wire() -> Frames:
    """What a source sends for a page that shrinks, one that does not, and the end."""
    with inprocess.source() as stage:
        sent: Frames = []
        for number, content in enumerate((b"relocation " * 372 + b"home", os.urandom(PAGE))):
            stage.stream.sendall(page(number, content))
            sent.append(stage.read_frame())
        sent.append(stage.end_stream())
    assert [(header.kind, header.codec) for header, _ in sent] == [
        (Kind.BATCH, Codec.ZSTD),
        (Kind.BATCH, Codec.RAW),
        (Kind.END, Codec.RAW),
    ]
    return sent


def flipped(data: bytes, at: int) -> bytes:
    """With one bit of one byte changed, each time another one."""
    changed = bytearray(data)
    changed[at] ^= 1 << (at * 5 % 8)
    return bytes(changed)


def places(sent: Frames) -> list[int]:
    """Offsets on the lane that are worth a try."""
    found = []
    for (header, frame), end in zip(sent, accumulate(len(frame) for _, frame in sent), strict=True):
        raw_page = range(
            HEADER_BYTES,
            HEADER_BYTES + (PAGE if header.kind is Kind.BATCH and header.codec is Codec.RAW else 0),
        )
        start = end - len(frame)
        found += [start + at for at in range(len(frame)) if at not in raw_page or at % CONTENT_STEP == 0]
    return found


def test_the_wire_as_it_is_arrives(wire: Frames) -> None:
    with inprocess.target() as stage:
        stage.lane.sendall(b"".join(frame for _, frame in wire))
        assert isinstance(stage.ear.verdict(CarrierEnded), CarrierEnded)


def test_every_bit_between_source_and_target_is_watched(wire: Frames) -> None:
    """Headers, compressed and plain content, descriptors, the END: nothing is written, or taken for the end."""
    whole = b"".join(frame for _, frame in wire)
    tried = places(wire)
    assert len(tried) > 800
    for at in tried:
        with inprocess.target() as stage:
            stage.lane.sendall(flipped(whole, at))
            verdict = stage.ear.verdict(CarrierEnded)
        assert isinstance(verdict, StreamError), (at, verdict)
        assert "damaged on its way" in str(verdict) or "not a frame" in str(verdict), (at, verdict)


def test_every_bit_of_a_channel_is_watched() -> None:
    """Headers, content, the end: nothing that changed is written."""
    digest, main = StreamDigest(), StreamDigest()
    digest.add(0, batch_digest(b"packets"))
    main.join(digest)
    end = End(7, 1, main.digest()).to_bytes()
    said = b"".join(
        frames.pack(Kind.CHANNEL, number, payload) + payload
        for number, payload in enumerate((b"packets", b""))
    )
    with inprocess.target(channels=1) as stage:
        stage.lane.sendall(frames.pack(Kind.END, 0, end) + end)
        stage.channels[0].sendall(said)
        assert isinstance(stage.ear.verdict(CarrierEnded), CarrierEnded)
        assert read_to_end(stage.channel_streams[0]) == b"packets"
    for at in range(len(said)):
        with inprocess.target(channels=1) as stage:
            stage.channels[0].sendall(flipped(said, at))
            verdict = stage.ear.verdict(CarrierEnded)
            written = bool(select.select(stage.channel_streams, [], [], 0)[0])
        assert written is (at >= HEADER_BYTES + len(b"packets"))
        assert isinstance(verdict, StreamError), (at, verdict)
        assert "damaged on its way" in str(verdict) or "not a frame" in str(verdict), (at, verdict)


def test_every_bit_of_the_return_path_is_watched() -> None:
    answers = b"".join(
        frames.pack(Kind.RETURN, number, payload) + payload for number, payload in enumerate((b"ready", b""))
    )
    with inprocess.source() as stage:
        stage.lane.sendall(answers)
        assert stage.stream.recv(100) == b"ready"
        assert stage.stream.recv(100) == b""
        stage.end_stream()
    for at in range(len(answers)):
        with inprocess.source() as stage:
            stage.lane.sendall(flipped(answers, at))
            verdict = stage.ear.verdict(CarrierEnded)
            stage.end_stream()
        assert isinstance(verdict, StreamError), (at, verdict)
        assert "damaged on its way" in str(verdict) or "not a frame" in str(verdict), (at, verdict)


@pytest.mark.parametrize("batch", [0, 1])
@pytest.mark.parametrize("at", [0, 777, PAGE - 1])
def test_what_changes_inside_of_a_carrier_is_found_by_the_digest(wire: Frames, batch: int, at: int) -> None:
    """Content that changes before it gets its checksum, or after that was looked at: every frame is in order."""
    header, frame = wire[batch]
    payload = frame[HEADER_BYTES:]
    content = decompress(payload, header.decoded_bytes) if header.codec is Codec.ZSTD else payload
    start = content.index(b"relocation ") if batch == 0 else 0
    changed = flipped(content, start + at)
    sent = [whole for _, whole in wire]
    sent[batch] = frames.pack(Kind.BATCH, header.sequence, changed) + changed
    with inprocess.target() as stage:
        stage.lane.sendall(b"".join(sent))
        verdict = stage.ear.verdict(CarrierEnded)
    assert isinstance(verdict, StreamError)
    assert "what arrived is not what was sent" in str(verdict)
