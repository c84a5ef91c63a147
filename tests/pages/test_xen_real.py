"""Streams of a real Xen 4.17, made smaller (``thin_xen``), and Xen's own verdict on what comes out of the codec."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from relocd.pages.batch import decode_batch
from relocd.pages.items import Item, NumberTable, pages, zero_pages
from relocd.pages.xen_decoder import XenDecoder
from relocd.pages.xen_encoder import XenEncoder
from relocd.pages.zstd import ZstdDecompressor
from tests.pages import thin_xen
from tests.pages.test_batch import pack
from tests.pages.xen_streams import Seen, seen
from tests.pages.xen_verifier import complaint

GOLDEN = sorted((Path(__file__).parent / "data").glob("xen-*.zst"))
PAGES = {"xen-4.17-live": (3578, 587), "xen-4.17-pv": (1768, 696), "xen-4.17-pvh": (1878, 586)}
"""How many pages with content, and how many zero ones, each stream has."""
STATIC_DATA = (0x10, 0x11, 0x12)
"""STATIC_DATA_END and what comes before it: what version 3 added."""


def golden(path: Path) -> bytes:
    return ZstdDecompressor().decompress(path.read_bytes())


def through(stream: bytes, size: int) -> tuple[bytes, list[Item], XenDecoder]:
    """As a relocation does it: pieces of this size decoded, items in batches and out of them, and encoded."""
    decoder, encoder = XenDecoder(), XenEncoder()
    items: list[Item] = []
    out, rest = bytearray(), b""
    for start in range(0, len(stream), size):
        data = rest + stream[start : start + size]
        found, used = decoder.decode(data)
        items += found
        rest = data[used:]
        for batch in pack(found):
            out += encoder.encode(decode_batch(batch))
    return bytes(out) + rest, items, decoder


def pages_of(stream: bytes) -> list[Seen]:
    """All pages, found without the decoder."""
    found: list[Seen] = []
    for kind, body in thin_xen.records(stream):
        if kind == thin_xen.PAGE_DATA:
            (count,) = struct.unpack_from("<I", body)
            contents = body[8 + 8 * count :]
            rows = [contents[at : at + 4096] for at in range(0, len(contents), 4096)]
            found += [row if any(row) else None for row in rows]
    return found


def as_version_2(stream: bytes) -> bytes:
    """What a Xen before 4.14 would have written: no static data, and the number in the header."""
    start = thin_xen.header_bytes(stream)
    head = bytearray(stream[:start])
    head[start - 28 : start - 24] = struct.pack(">I", 2)
    kept = [record for record in thin_xen.records(stream) if record[0] not in STATIC_DATA]
    return bytes(head) + b"".join(thin_xen.record(kind, body) for kind, body in kept)


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_a_golden_stream_is_understood_whole(path: Path) -> None:
    stream = golden(path)
    out, items, decoder = through(stream, 525_312)
    assert out == stream
    assert decoder.memory_ended
    assert not decoder.lost
    assert seen(items) == pages_of(stream)
    assert (sum(map(pages, items)), sum(map(zero_pages, items))) == PAGES[path.stem]
    assert any(isinstance(item, NumberTable) for item in items)


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_the_law_holds_for_golden_streams_in_pieces(path: Path) -> None:
    stream = golden(path)[:3_000_000]
    assert through(stream, 4097)[0] == stream


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
@pytest.mark.parametrize("version", [2, 3])
def test_xen_accepts_what_comes_out(path: Path, version: int) -> None:
    stream = golden(path) if version == 3 else as_version_2(golden(path))
    out, items, decoder = through(stream, 100_000)
    assert out == stream
    assert not decoder.lost
    assert sum(map(pages, items)) == PAGES[path.stem][0]
    assert complaint(out) == ""


def test_xen_complains_of_a_stream_that_is_damaged() -> None:
    stream = bytearray(golden(GOLDEN[0]))
    stream[thin_xen.header_bytes(stream) + 4] ^= 8
    assert complaint(stream)
    assert through(bytes(stream), 100_000)[0] == stream
