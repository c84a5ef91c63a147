"""Makes a recorded stream of Xen small enough to be kept: its records as they are, but fewer pages, of other content.

``python -m tests.pages.thin_xen pvh.xl tests/pages/data/xen-4.17-pvh.zst``. It reads the stream on its own, without
the decoder that is tested with what it writes. A page that is not zero gets its own digest, over and over: what a
guest has in its memory is nobody's business, and other people's programs.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterator
from pathlib import Path

import xxhash

from relocd.pages.zstd import ZstdCompressor

PAGE_BYTES = 4096
END, PAGE_DATA = 0, 1
TYPE_SHIFT = 60
WITHOUT_PAGE = (13, 14, 15)

GROUP, EVERY = 8, 10
"""Every tenth group of eight entries of a record is kept, so that what is next to each other stays so."""
SHORT = 600
"""A record with so few entries is kept whole: those of a live migration's last rounds."""
EMPTY_EVERY = 40
"""Of records without any page, of which a PVH guest has a thousand, every 40th is kept, whole."""

_RECORD = struct.Struct("<II")


def header_bytes(stream: bytes) -> int:
    """Where the records of libxc begin: behind the headers of xl, libxl, libxc and the domain."""
    (optional_bytes,) = struct.unpack_from("<I", stream, 44)
    return 48 + int(optional_bytes) + 16 + 8 + 24 + 16


def records(stream: bytes) -> Iterator[tuple[int, bytes]]:
    """Type and body of each record: libxc's, up to its END, and libxl's, up to its END."""
    start, ends = header_bytes(stream), 0
    while ends < 2:
        kind, size = _RECORD.unpack_from(stream, start)
        start += _RECORD.size
        yield kind, stream[start : start + size]
        start += -(-size // 8) * 8
        ends += kind == END


def record(kind: int, body: bytes) -> bytes:
    """A record as it stands in a stream."""
    return _RECORD.pack(kind, len(body)) + body + bytes(-len(body) % 8)


def thin(stream: bytes) -> bytes:
    """The stream with fewer pages. What xl says after it is kept."""
    out = bytearray(stream[: header_bytes(stream)])
    whole_bytes = len(out)
    for number, (kind, body) in enumerate(records(stream)):
        whole_bytes += len(record(kind, body))
        kept = _fewer(number, body) if kind == PAGE_DATA else body
        if kept is not None:
            out += record(kind, kept)
    return bytes(out) + stream[whole_bytes:]


def _fewer(number: int, body: bytes) -> bytes | None:
    """A body of PAGE_DATA with fewer pages; None if the whole record is left out."""
    (count,) = struct.unpack_from("<I", body)
    entries = struct.unpack_from(f"<{count}Q", body, 8)
    first_page = 8 + 8 * count
    if len(body) == first_page:
        return None if number % EMPTY_EVERY else body
    kept, pages = [], bytearray()
    for index, entry in enumerate(entries):
        page_bytes = 0 if entry >> TYPE_SHIFT in WITHOUT_PAGE else PAGE_BYTES
        if count <= SHORT or (index // GROUP + number) % EVERY == 0:
            kept.append(entry)
            pages += _anonymous(body[first_page : first_page + page_bytes])
        first_page += page_bytes
    return struct.pack(f"<II{len(kept)}Q", len(kept), 0, *kept) + pages if kept else None


def _anonymous(page: bytes) -> bytes:
    """Zeros for zeros, and the page's digest, over and over, for all else."""
    digest = xxhash.xxh3_128_digest(page)
    return digest * (len(page) // len(digest)) if any(page) else page


if __name__ == "__main__":
    source, target = map(Path, sys.argv[1:])
    small = thin(source.read_bytes())
    target.write_bytes(ZstdCompressor(19).compress(small, ZstdCompressor.FLUSH_FRAME))
    print(f"{source.name}: {len(small)} bytes, {target.stat().st_size} compressed")
