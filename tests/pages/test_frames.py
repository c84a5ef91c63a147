"""Frame headers: strict, and nothing passes that was changed on its way."""

from __future__ import annotations

import struct

import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from relocd.errors import StreamError
from relocd.pages import frames, limits
from relocd.pages.frames import HEADER_BYTES, Codec, End, FileEnd, Header, Kind

_sequences = st.integers(0, (1 << 64) - 1)


@given(_sequences, st.binary(min_size=1, max_size=500))
def test_a_frame_comes_back(sequence: int, payload: bytes) -> None:
    header = frames.unpack(frames.pack(Kind.BATCH, sequence, payload))
    frames.verify(header, payload)
    assert (header.kind, header.codec, header.sequence) == (Kind.BATCH, Codec.RAW, sequence)
    assert header.decoded_bytes == header.wire_bytes == len(payload)


def test_a_compressed_frame_says_both_sizes() -> None:
    header = frames.unpack(frames.pack(Kind.BATCH, 1, b"xyz", decoded_bytes=900))
    assert (header.codec, header.decoded_bytes, header.wire_bytes) == (Codec.ZSTD, 900, 3)


@given(st.binary(min_size=HEADER_BYTES, max_size=HEADER_BYTES))
def test_any_bytes_are_a_header_or_an_error(data: bytes) -> None:
    with pytest.raises(StreamError):  # the magic cannot be hit by chance
        frames.unpack(data)


@given(st.binary(min_size=1, max_size=64), st.data())
def test_every_flipped_bit_is_found(payload: bytes, data: st.DataObject) -> None:
    frame = bytearray(frames.pack(Kind.BATCH, 7, payload) + payload)
    bit = data.draw(st.integers(0, len(frame) * 8 - 1))
    frame[bit // 8] ^= 1 << bit % 8
    with pytest.raises(StreamError):
        frames.verify(frames.unpack(frame[:HEADER_BYTES]), frame[HEADER_BYTES:])


@given(st.binary(min_size=2, max_size=64))
def test_a_shortened_payload_is_found(payload: bytes) -> None:
    header = frames.unpack(frames.pack(Kind.BATCH, 7, payload))
    with pytest.raises(StreamError, match="damaged"):
        frames.verify(header, payload[:-1])


@given(st.integers(0, HEADER_BYTES * 8 - 1))
def test_a_damaged_header_is_found_before_anything_is_waited_for(bit: int) -> None:
    header = bytearray(frames.pack(Kind.BATCH, 7, b"x" * 1000))
    header[bit // 8] ^= 1 << bit % 8
    with pytest.raises(StreamError, match=r"damaged|not a frame"):
        frames.unpack(header)


def raw(kind: int = 1, codec: int = 0, decoded: int = 1, wire: int = 1, **other: int) -> bytes:
    """A header that is wrong in nothing but what is said."""
    version, reserved, sequence = other.get("version", 1), other.get("reserved", 0), other.get("sequence", 0)
    fields = struct.pack(
        "!4sBBBBQIIQ", frames.MAGIC, version, kind, codec, reserved, sequence, decoded, wire, 0
    )
    return fields + xxhash.xxh3_64_digest(fields)


WRONG = {
    "garbage": (b"x" * HEADER_BYTES, "not a frame"),
    "checksum": (raw()[:-1] + b"\0", "damaged"),
    "version": (raw(version=2), "version 2"),
    "reserved": (raw(reserved=1), "reserved"),
    "kind zero": (raw(kind=0), "unknown kind 0"),
    "kind unknown": (raw(kind=8), "unknown kind 8"),
    "codec unknown": (raw(codec=2), "codec 2"),
    "batch too long": (raw(decoded=limits.BATCH_BYTES_MAX + 1, wire=5, codec=1), "announces 2097153 bytes"),
    "batch of 4 GiB": (raw(decoded=0xFFFFFFFF, wire=0xFFFFFFFF), "announces 4294967295 bytes"),
    "empty batch": (raw(decoded=0, wire=0), "announces 0 bytes"),
    "return path too long": (raw(kind=2, decoded=65537, wire=65537), "announces 65537"),
    "file piece too long": (raw(kind=3, decoded=(256 << 10) + 1, wire=(256 << 10) + 1), "announces"),
    "file end of the wrong size": (raw(kind=4, decoded=11, wire=11), "announces 11"),
    "end of the wrong size": (raw(kind=5, decoded=33, wire=33), "announces 33"),
    "abort too long": (raw(kind=6, decoded=1025, wire=1025), "announces 1025"),
    "abort with a sequence": (raw(kind=6, decoded=0, wire=0, sequence=1), "no place in the sequence"),
    "channel piece too long": (
        raw(kind=7, decoded=(256 << 10) + 1, wire=(256 << 10) + 1),
        "a CHANNEL frame announces 262145",
    ),
    "raw with two sizes": (raw(decoded=2, wire=1), "two different sizes"),
    "compressed return path": (raw(kind=2, codec=1, decoded=9, wire=1), "never compressed"),
    "compressed channel piece": (raw(kind=7, codec=1, decoded=9, wire=1), "never compressed"),
    "compressed to more": (raw(codec=1, decoded=9, wire=9), "not smaller"),
    "compressed to nothing": (raw(codec=1, decoded=9, wire=0), "not smaller"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_header_is_refused_with_a_reason(case: str) -> None:
    data, reason = WRONG[case]
    with pytest.raises(StreamError, match=reason):
        frames.unpack(data)


@pytest.mark.parametrize("kind", [Kind.RETURN, Kind.CHANNEL])
@given(payload=st.binary(max_size=500))
def test_what_the_hypervisor_says_comes_back_and_may_be_nothing(kind: Kind, payload: bytes) -> None:
    header = frames.unpack(frames.pack(kind, 3, payload))
    frames.verify(header, payload)
    assert (header.kind, header.sequence, header.wire_bytes) == (kind, 3, len(payload))


def test_zero_bytes_are_no_frame() -> None:
    with pytest.raises(StreamError, match="not a frame"):
        frames.unpack(bytes(HEADER_BYTES))


def test_the_layout_is_what_the_specification_says() -> None:
    """Golden bytes: a change here is a change of the protocol's version."""
    assert frames.pack(Kind.RETURN, 5, b"abc").hex() == (
        "726c7046" "01" "02" "00" "00" "0000000000000005" "00000003" "00000003" "78af5f94892f3950" "a8de2ceefd04ddbb"
    )  # fmt: skip


@given(st.integers(0, (1 << 32) - 1), _sequences)
def test_file_end_comes_back(index: int, size: int) -> None:
    assert FileEnd.from_bytes(FileEnd(index, size).to_bytes()) == FileEnd(index, size)


@given(_sequences, _sequences, st.binary(min_size=16, max_size=16))
def test_end_comes_back(stream_bytes: int, batches: int, digest: bytes) -> None:
    end = End(stream_bytes, batches, digest)
    assert End.from_bytes(end.to_bytes()) == end


@given(st.text(max_size=3000))
def test_a_reason_always_fits_an_abort(reason: str) -> None:
    payload = frames.abort_payload(reason)
    header = frames.unpack(frames.pack(Kind.ABORT, 0, payload))
    assert isinstance(header, Header)
    assert frames.abort_reason(payload).isprintable()


def test_a_reason_cannot_write_to_a_terminal() -> None:
    assert frames.abort_reason(b"no\x1b[2J\nroot: ok") == "no�[2J�root: ok"
