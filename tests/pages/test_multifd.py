"""What goes by in a channel of QEMU's multifd is counted, however it is cut; nothing in it is believed."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relocd.pages.multifd import INITIAL_BYTES, Meter, Seen

PAGE = 4096
HEADER_BYTES = 320
MAGIC = 0x11223344
INITIAL = struct.pack("!II16sB7x32x", MAGIC, 1, bytes(range(16)), 3)


def header(
    *, places: int = 2, pages: int = 0, content_bytes: int = 0, magic: int = MAGIC, version: int = 1
) -> bytes:
    """``MultiFDPacket_t`` up to the places of its pages; flags, number and block mean nothing to a meter."""
    fields = (magic, version, 1, places, pages, content_bytes, 77, b"pc.ram")
    return struct.pack("!IIIIIIQ32x256s", *fields)


def packet(pages: int, content_bytes: int, *, places: int = 128) -> bytes:
    """A packet with its content, as far as a meter is concerned."""
    content = bytes(content_bytes if pages else 0)
    return header(places=places, pages=pages, content_bytes=content_bytes) + bytes(8 * places) + content


_packets = st.builds(packet, st.integers(0, 4), st.integers(0, 5 * PAGE), places=st.sampled_from([4, 5, 128]))
_channels = st.lists(_packets, max_size=4)


def fed(meter: Meter, pieces: Iterable[bytes]) -> Seen:
    """What a meter saw in all pieces."""
    return sum((meter.feed(piece) for piece in pieces), Seen())


def cut(data: bytes, cuts: Sequence[int]) -> list[bytes]:
    """In pieces, some of which may be empty."""
    ends = sorted(at % (len(data) + 1) for at in cuts)
    return [data[a:b] for a, b in zip([0, *ends], [*ends, len(data)], strict=True)]


def test_the_layout_is_qemus() -> None:
    assert (len(INITIAL), len(header())) == (INITIAL_BYTES, HEADER_BYTES) == (64, 320)


def test_pages_and_what_they_shrank_by_are_counted() -> None:
    channel = INITIAL + packet(4, 1000) + packet(1, 96) + packet(3, 3 * PAGE)
    assert Meter().feed(channel) == Seen(8, 4 * PAGE - 1000 + PAGE - 96)


def test_content_that_got_longer_saves_nothing() -> None:
    assert Meter().feed(INITIAL + packet(2, 2 * PAGE + 40) + packet(1, 96)) == Seen(3, PAGE - 96)


@pytest.mark.parametrize("content_bytes", [0, 1000, 1 << 30])
def test_a_packet_without_pages_has_no_content_whatever_it_says(content_bytes: int) -> None:
    meter = Meter()
    assert meter.feed(INITIAL + packet(0, content_bytes)) == Seen()
    assert not meter.inside
    assert meter.feed(packet(1, 96)) == Seen(1, PAGE - 96)


@given(_channels, st.lists(st.integers(0, 1 << 20), max_size=20))
def test_pieces_of_any_size_count_the_same(packets: list[bytes], cuts: list[int]) -> None:
    channel = INITIAL + b"".join(packets)
    whole, pieces = Meter(), Meter()
    assert fed(pieces, cut(channel, cuts)) == whole.feed(channel)
    assert pieces.inside is whole.inside is False


def test_single_bytes_count_the_same() -> None:
    channel = INITIAL + packet(2, 700) + packet(0, 700) + packet(1, PAGE + 1, places=1)
    assert (
        fed(Meter(), [bytes([byte]) for byte in channel]) == Meter().feed(channel) == Seen(3, 2 * PAGE - 700)
    )


def test_where_a_packet_ends_is_known() -> None:
    parts = [INITIAL, packet(2, 700, places=2), packet(0, 700, places=2), packet(1, 96, places=2)]
    ends = {sum(len(part) for part in parts[: number + 1]) for number in range(len(parts))}
    meter = Meter()
    assert meter.inside
    for done, byte in enumerate(b"".join(parts), 1):
        meter.feed(bytes([byte]))
        assert meter.inside is (done not in ends), done


def test_a_piece_may_be_of_any_kind_of_memory() -> None:
    channel = INITIAL + packet(1, 96)
    for piece in (channel, bytearray(channel), memoryview(channel)):
        assert Meter().feed(piece) == Seen(1, PAGE - 96)


INSANE = {
    "another magic": header(magic=0x11223345, pages=1),
    "another version": header(version=2, pages=1),
    "more pages than places": header(places=2, pages=3),
    "too many places": header(places=(1 << 16) + 1, pages=1),
    "too much content": header(pages=1, content_bytes=(1 << 30) + 1),
    "too much content of no page": header(pages=0, content_bytes=(1 << 30) + 1),
    "zeros": bytes(HEADER_BYTES),
    "text": b"QEVM" * 80,
}


@pytest.mark.parametrize("case", INSANE)
def test_from_what_is_no_packet_on_nothing_is_counted(case: str) -> None:
    meter = Meter()
    assert meter.feed(INITIAL + packet(1, 96) + INSANE[case] + packet(1, 96)) == Seen(1, PAGE - 96)
    assert not meter.inside
    assert meter.feed(packet(1, 96)[:100]) == Seen()
    assert not meter.inside


@pytest.mark.parametrize(
    "most", [header(places=1 << 16, pages=1 << 16), header(pages=1, content_bytes=1 << 30)]
)
def test_the_largest_packet_is_one(most: bytes) -> None:
    meter = Meter()
    assert meter.feed(INITIAL + most).pages
    assert meter.inside


_numbers = st.integers(0, (1 << 32) - 1) | st.integers(0, 1 << 17) | st.sampled_from([1, 1 << 30])
_headers = st.builds(
    header,
    places=_numbers,
    pages=_numbers,
    content_bytes=_numbers,
    magic=st.just(MAGIC) | _numbers,
    version=st.just(1) | _numbers,
)


@given(st.lists(st.binary(max_size=400) | _headers | _packets | st.just(INITIAL), max_size=8))
def test_anything_can_go_by(pieces: list[bytes]) -> None:
    """And is counted the same at once; a page that is counted has taken its place of 8 bytes, or is still to come."""
    whole, single = Meter(), Meter()
    seen = fed(single, pieces)
    assert whole.feed(b"".join(pieces)) == seen
    assert whole.inside is single.inside
    assert 0 <= seen.saved_bytes <= seen.pages * PAGE
    assert seen.pages * 8 <= len(b"".join(pieces)) + (8 << 16)


@given(st.integers(0, 2), st.binary(min_size=HEADER_BYTES, max_size=900))
def test_what_is_no_packet_is_let_go_by_uncounted(packets: int, rest: bytes) -> None:
    meter = Meter()
    meter.feed(INITIAL + packet(1, 96) * packets)
    assert meter.feed(rest) == Seen()  # the magic cannot be hit by chance
    assert not meter.inside
