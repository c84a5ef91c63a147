"""Xen's streams made by hand: a builder that also knows what a decoder must find, and hypothesis strategies."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np
from hypothesis import strategies as st

from relocd.pages.items import PAGE_SIZE, BarePages, Item

Seen = bytes | None
"""A page as it goes by: its content, None if it is zero."""

NORMAL, BROKEN, ALLOCATE_ONLY, INVALID = 0x0, 0xD, 0xE, 0xF
WITHOUT_PAGE = (BROKEN, ALLOCATE_ONLY, INVALID)
CONFIG = b'{"c_info": {"type": "pvh", "name": "guest"}}\0'

Entry = tuple[int, int, Seen]
"""One entry of PAGE_DATA: type, page number, content (None is a zero page, or no page, as the type says)."""


class XenStreamBuilder:
    """Writes a stream piece by piece; ``seen`` is what a decoder has to report of it."""

    def __init__(self) -> None:
        self.bytes = bytearray()
        self.seen: list[Seen] = []

    def raw(self, data: bytes) -> XenStreamBuilder:
        self.bytes += data
        return self

    def xl(self, config: bytes = CONFIG, *, mandatory: int = 3, order: int = 0x01020304) -> XenStreamBuilder:
        optional = struct.pack("<I", len(config)) + config
        self.raw(b"Xen saved domain, xl format\n \0 \r")
        return self.raw(struct.pack("<IIII", order, mandatory, 0, len(optional)) + optional)

    def libxl(self, version: int = 2, options: int = 0) -> XenStreamBuilder:
        return self.raw(b"LibxlFmt" + struct.pack(">II", version, options))

    def libxc(
        self, version: int = 3, options: int = 0, page_shift: int = 12, kind: int = 2, reserved: int = 0
    ) -> XenStreamBuilder:
        self.raw(b"\xff" * 8 + b"XENF" + struct.pack(">IHHI", version, options, 0, reserved))
        return self.raw(struct.pack("<IHHII", kind, page_shift, 0, 4, 17))

    def record(self, kind: int, body: bytes = b"") -> XenStreamBuilder:
        """A record of either layer."""
        return self.raw(struct.pack("<II", kind, len(body)) + body + bytes(-len(body) % 8))

    def pages(self, entries: Sequence[Entry]) -> XenStreamBuilder:
        """A record PAGE_DATA."""
        words = [kind << 60 | number for kind, number, _ in entries]
        contents = [content for kind, _, content in entries if kind not in WITHOUT_PAGE]
        self.seen += contents
        body = struct.pack(f"<II{len(words)}Q", len(words), 0, *words)
        return self.record(1, body + b"".join(content or bytes(PAGE_SIZE) for content in contents))

    def end(self) -> XenStreamBuilder:
        return self.record(0)


def whole(version: int = 3) -> XenStreamBuilder:
    """The beginning of a migration of a PVH guest, up to where its pages come."""
    stream = (
        XenStreamBuilder()
        .xl()
        .libxl()
        .record(1)
        .libxc(version)
        .record(0x11, bytes(48))
        .record(0x12, bytes(32))
    )
    return stream.record(0x10) if version == 3 else stream


def seen(items: Sequence[Item]) -> list[Seen]:
    """The pages in decoded items, one by one."""
    found: list[Seen] = []
    for item in items:
        if isinstance(item, BarePages):
            rows = iter(item.contents)
            found += [next(rows).tobytes() if filled else None for filled in item.filled]
    return found


_contents = st.binary(min_size=1, max_size=8).filter(any).map(lambda b: (b * PAGE_SIZE)[:PAGE_SIZE])
_types = st.sampled_from([0, 0, 0, 1, 2, 3, 4, 9, 10, 11, 12, *WITHOUT_PAGE])
_optional = st.integers(1 << 31, (1 << 32) - 1)


@st.composite
def _entries(draw: st.DrawFn) -> list[Entry]:
    """A stretch of pages, or pages from anywhere; of one type, or of many."""
    count = draw(st.integers(1, 12))
    first = draw(st.integers(0, (1 << 52) - 64))
    anywhere = st.integers(0, (1 << 52) - 1)
    numbers = draw(
        st.just(list(range(first, first + count))) | st.lists(anywhere, min_size=count, max_size=count)
    )
    kinds = draw(st.just([NORMAL] * count) | st.lists(_types, min_size=count, max_size=count))
    contents = draw(st.lists(st.none() | _contents, min_size=count, max_size=count))
    return list(zip(kinds, numbers, contents, strict=True))


@st.composite
def _libxc(draw: st.DrawFn, stream: XenStreamBuilder) -> None:
    """Records up to the end of one libxc stream, or up to a checkpoint."""
    others = st.tuples(
        st.sampled_from([2, 4, 7, 8, 9, 10, 13, 16, 17, 18]) | _optional, st.binary(max_size=40)
    )
    for _ in range(draw(st.integers(0, 4))):
        if draw(st.booleans()):
            stream.pages(draw(_entries()))
        else:
            stream.record(*draw(others))


@st.composite
def builders(draw: st.DrawFn) -> XenStreamBuilder:
    """Whole streams: with xl's header or without, of libxl or of libxc alone, with checkpoints or without."""
    stream = XenStreamBuilder()
    layers = draw(st.integers(1, 3))
    if layers == 3:
        stream.xl(draw(st.binary(max_size=50)), mandatory=draw(st.sampled_from([2, 3])))
    if layers >= 2:
        stream.libxl(options=draw(st.sampled_from([0, 2]))).record(1)
    stream.libxc(draw(st.sampled_from([2, 3])), kind=draw(st.sampled_from([1, 2])))
    draw(_libxc(stream))
    for _ in range(draw(st.integers(0, 2))):
        stream.record(14)
        if layers >= 2:
            stream.record(3, draw(st.binary(min_size=8, max_size=40))).record(4)
        draw(_libxc(stream))
    stream.end()
    if layers >= 2:
        stream.record(2, draw(st.binary(max_size=40))).record(draw(_optional), b"x").end()
    return stream.raw(draw(st.binary(max_size=60)))


xen_streams = builders().map(lambda builder: bytes(builder.bytes))


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """Streams with a few bytes changed, put in or left out, mostly near the beginning, where the headers are."""
    stream = bytearray(draw(xen_streams))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, 300) | st.integers(0, max(0, len(stream) - 1)))
        stream[at : at + draw(st.integers(0, 2))] = draw(st.binary(max_size=2))
    return bytes(stream)


_beginnings = st.sampled_from(
    [whole(), XenStreamBuilder().libxc(), XenStreamBuilder().libxl(), XenStreamBuilder()]
)
anything = st.one_of(
    xen_streams,
    damaged(),
    st.tuples(_beginnings, st.binary(max_size=300)).map(lambda pair: bytes(pair[0].bytes) + pair[1]),
)


def bulk(rows: np.ndarray, *, first: int = 0x1000, record_pages: int = 1024) -> bytes:
    """A long migration quickly: these rows as normal pages, in records as Xen writes them."""
    out = [bytes(whole().bytes)]
    for start in range(0, len(rows), record_pages):
        part = rows[start : start + record_pages]
        words = np.arange(first + start, first + start + len(part), dtype="<u8").tobytes()
        out += [struct.pack("<IIII", 1, 8 + len(words) + part.size, len(part), 0), words, part.tobytes()]
    return b"".join([*out, bytes(XenStreamBuilder().record(9, bytes(100)).end().end().bytes)])
