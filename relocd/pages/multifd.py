"""What goes by in a channel of QEMU's multifd, told from its packets' headers. Nothing is changed or held back.

The layout is that of migration/multifd.h (QEMU 4.0 to 10.0, ``MULTIFD_VERSION`` 1), all numbers big-endian: an
initial packet of 64 bytes, then packets of a header, a place for each page that a packet could have, and the content
of those that it has, ``next_packet_size`` bytes, compressed if the migration is set up so. One without pages has no
content, whatever it says.
"""

from __future__ import annotations

import struct
from typing import Final

from attrs import frozen

from relocd.pages.items import PAGE_SIZE, Buffer

INITIAL_BYTES: Final = 64
"""``MultiFDInit_t``: magic, version, UUID of the domain, number of the channel."""
_MAGIC: Final = 0x11223344
_VERSION: Final = 1
_HEADER: Final = struct.Struct("!IIIIII8x32x256x")  # ``MultiFDPacket_t``, without the pages' offsets
_OFFSET_BYTES: Final = 8
_PAGES_MAX: Final = 1 << 16
_CONTENT_BYTES_MAX: Final = 1 << 30


@frozen
class Seen:
    """Of a piece of the channel: pages that it brings, and by how much their content is shorter than they are."""

    pages: int = 0
    saved_bytes: int = 0

    def __add__(self, other: Seen) -> Seen:
        return Seen(self.pages + other.pages, self.saved_bytes + other.saved_bytes)


class Meter:
    """Counts one channel. Feed it all bytes, in any pieces."""

    def __init__(self) -> None:
        self._header = bytearray()
        self._due_bytes = INITIAL_BYTES  # until the next header begins
        self._known = True

    @property
    def inside(self) -> bool:
        """Whether the packet that goes by is sure to go on. False where that is not known."""
        return self._known and bool(self._due_bytes or self._header)

    def feed(self, piece: Buffer) -> Seen:
        """Look at the next piece. From the first thing that is no packet on nothing is counted any more."""
        view = memoryview(piece)
        seen = Seen()
        while self._known and len(view):
            view = self._pass(view)
            if len(self._header) == _HEADER.size:
                seen += self._packet()
        return seen

    def _pass(self, view: memoryview) -> memoryview:
        """Let go by what is due; else take of the header what is there. Returns the rest."""
        if self._due_bytes:
            gone = min(self._due_bytes, len(view))
            self._due_bytes -= gone
            return view[gone:]
        missing = _HEADER.size - len(self._header)
        self._header += view[:missing]
        return view[missing:]

    def _packet(self) -> Seen:
        magic, version, _, places, pages, content_bytes = _HEADER.unpack(self._header)
        self._header.clear()
        sane = pages <= places <= _PAGES_MAX and content_bytes <= _CONTENT_BYTES_MAX
        if magic != _MAGIC or version != _VERSION or not sane:
            self._known = False
            return Seen()
        if not pages:
            content_bytes = 0  # a packet that only keeps the channels in step says what the one before had
        self._due_bytes = places * _OFFSET_BYTES + content_bytes
        # Content that does not compress gets a little longer.
        return Seen(pages, max(0, pages * PAGE_SIZE - content_bytes))
