"""QEMU's plain migration stream to items; ``qemu_encoder`` is the way back.

The law is ``encode(decode(x)) == x``, byte for byte, whatever x is and however it is cut. So the decoder may know
less than QEMU: what it does not understand becomes a span, and since sections carry no length by which one could
pick up the thread again, only spans come from then on. It never guesses: a page is reported only if its record
names a block that the stream has announced, and lies inside it.

After the RAM section comes device state, whose sections carry no length; that is where understanding ends in
a healthy stream.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import numpy as np
import numpy.typing as npt

from relocd.pages import qemu_format as fmt
from relocd.pages.decoder import Decoder, Found
from relocd.pages.items import PAGE_SIZE, Numbers, Octets, PageRun, ZeroRun

_BE64: Final = np.dtype(">u8")
_PAGE_BITS: Final = np.uint64(PAGE_SIZE.bit_length() - 1)
_BLOCKS_MAX: Final = 1024  # a guest has some ten, and one for each ROM; a longer list would be kept in memory
_PROBE: Final = 64  # records looked at first; a run that fills the look is worth a wider one


class QemuDecoder(Decoder):
    """See :class:`relocd.pages.decoder.Decoder`. What it leaves of a buffer is less than RECORD_BYTES_MAX."""

    def __init__(self) -> None:
        super().__init__(self._file_header)
        self._ram_section: int | None = None
        self._last_part = False
        self._unlisted_bytes = 0
        self._blocks: dict[str, int] = {}
        self._block: str | None = None

    @property
    def blocks(self) -> Mapping[str, int]:
        """The blocks of guest memory that the stream has announced: name to length in bytes."""
        return MappingProxyType(self._blocks)

    # Steps. None needs to see more than RECORD_BYTES_MAX.

    def _file_header(self, view: memoryview, position: int) -> Found | None:
        head = view[position : position + len(fmt.HEADER)]
        if head != fmt.HEADER[: len(head)]:
            return self._lost(position)
        if len(head) < len(fmt.HEADER):
            return None
        self._step = self._section
        return position + len(head), None

    def _section(self, view: memoryview, position: int) -> Found | None:
        reader = {
            fmt.CONFIGURATION: self._configuration,
            fmt.SUBSECTION: self._subsection,
            fmt.COMMAND: self._command,
            fmt.SECTION_START: self._section_start,
            fmt.SECTION_PART: self._section_part,
            fmt.SECTION_END: self._section_part,
            fmt.SECTION_FOOTER: self._section_footer,
        }.get(view[position])
        return reader(view, position) if reader else self._lost(position)

    def _configuration(self, view: memoryview, position: int) -> Found | None:
        if len(view) - position < 5:
            return None
        (size,) = struct.unpack_from(">xI", view, position)
        return self._skip(position + 5, size, self._section)

    def _subsection(self, view: memoryview, position: int) -> Found | None:
        name = _name_at(view, position + 1)
        if name is None or len(view) < (end := position + 2 + len(name) + 4):
            return None
        size = fmt.SUBSECTIONS.get(name)
        return self._lost(position) if size is None else self._skip(end, size, self._section)

    def _command(self, view: memoryview, position: int) -> Found | None:
        if len(view) - position < 5:
            return None
        command, size = struct.unpack_from(">xHH", view, position)
        return (
            self._skip(position + 5, size, self._section) if command in fmt.COMMANDS else self._lost(position)
        )

    def _section_start(self, view: memoryview, position: int) -> Found | None:
        name = _name_at(view, position + 5)
        if name is None or len(view) < (end := position + 6 + len(name) + 8):
            return None
        (section,) = struct.unpack_from(">xI", view, position)
        kind = struct.unpack_from(">II", view, end - 8)
        if name != fmt.RAM_ID or kind != fmt.RAM_INSTANCE_AND_VERSION or self._ram_section is not None:
            return self._lost(position)
        self._ram_section = section
        self._step = self._record
        return end, None

    def _section_part(self, view: memoryview, position: int) -> Found | None:
        if len(view) - position < 5:
            return None
        kind, section = struct.unpack_from(">BI", view, position)
        if section != self._ram_section:
            return self._lost(position)
        self._last_part = kind == fmt.SECTION_END
        self._step = self._record
        return position + 5, None

    def _section_footer(self, view: memoryview, position: int) -> Found | None:
        if len(view) - position < 5:
            return None
        (section,) = struct.unpack_from(">xI", view, position)
        return (position + 5, None) if section == self._ram_section else self._lost(position)

    def _record(self, view: memoryview, position: int) -> Found | None:
        if len(view) - position < fmt.WORD.size:
            return None
        (word,) = fmt.WORD.unpack_from(view, position)
        flags = word & fmt.FLAGS
        if flags & fmt.CONTINUE and self._block is not None:
            if flags == fmt.PAGE | fmt.CONTINUE:
                return self._pages(view, position)
            if flags == fmt.ZERO | fmt.CONTINUE:
                return self._zeros(view, position)
        if flags in (fmt.PAGE, fmt.ZERO):
            return self._named(view, position, word)
        if word == fmt.END_OF_PAYLOAD:
            self._memory_ended = self._last_part
            self._step = self._rest if self._last_part else self._section
            return position + fmt.WORD.size, None
        if flags == fmt.MEM_SIZE and not self._blocks and word != flags:
            self._unlisted_bytes = word - flags
            self._step = self._block_length
            return position + fmt.WORD.size, None
        return self._lost(position)

    def _block_length(self, view: memoryview, position: int) -> Found | None:
        raw = _name_at(view, position)
        if raw is None or len(view) < (end := position + 1 + len(raw) + fmt.WORD.size):
            return None
        (length,) = fmt.WORD.unpack_from(view, end - fmt.WORD.size)
        name = _text(raw)
        if not name or name in self._blocks or not 0 < length <= self._unlisted_bytes:
            return self._lost(position)
        if len(self._blocks) >= _BLOCKS_MAX:
            return self._lost(position)
        self._blocks[name] = length
        self._unlisted_bytes -= length
        if not self._unlisted_bytes:
            self._step = self._record
        return end, None

    def _named(self, view: memoryview, position: int, word: int) -> Found | None:
        raw = _name_at(view, position + fmt.WORD.size)
        if raw is None:
            return None
        start = position + fmt.WORD.size + 1 + len(raw)
        end = start + (PAGE_SIZE if word & fmt.PAGE else 1)
        if len(view) < end:
            return None
        name = _text(raw)
        if word >= self._blocks.get(name, 0) or (word & fmt.ZERO and view[start]):
            return self._lost(position)
        self._block = name
        number = np.array([word >> int(_PAGE_BITS)], np.uint64)
        if word & fmt.ZERO:
            return end, ZeroRun(name, number, named=True)
        return end, PageRun(name, number, np.ndarray((1, PAGE_SIZE), np.uint8, view, start), named=True)

    def _pages(self, view: memoryview, position: int) -> Found | None:
        most = (len(view) - position) // fmt.PAGE_STRIDE
        if not most:
            return None
        words: npt.NDArray[np.uint64] = np.ndarray((most,), _BE64, view, position, (fmt.PAGE_STRIDE,))
        numbers = self._numbers(words, fmt.PAGE | fmt.CONTINUE)
        count = len(numbers)
        if not count:
            return self._lost(position)
        start = position + fmt.WORD.size
        contents: Octets = np.ndarray((count, PAGE_SIZE), np.uint8, view, start, (fmt.PAGE_STRIDE, 1))
        return position + count * fmt.PAGE_STRIDE, PageRun(self._block or "", numbers, contents)

    def _zeros(self, view: memoryview, position: int) -> Found | None:
        most = (len(view) - position) // fmt.ZERO_STRIDE
        if not most:
            return None
        words: npt.NDArray[np.uint64] = np.ndarray((most,), _BE64, view, position, (fmt.ZERO_STRIDE,))
        numbers = self._numbers(words, fmt.ZERO | fmt.CONTINUE)
        start = position + fmt.WORD.size
        fills: Octets = np.ndarray((len(numbers),), np.uint8, view, start, (fmt.ZERO_STRIDE,))
        count = _leading(fills == 0)
        if not count:
            return self._lost(position)
        return position + count * fmt.ZERO_STRIDE, ZeroRun(self._block or "", numbers[:count])

    def _numbers(self, words: npt.NDArray[np.uint64], flags: int) -> Numbers:
        """Page numbers of the leading records that have these flags and lie in the current block."""
        length = self._blocks.get(self._block or "", 0)
        parts = []
        start, look = 0, _PROBE
        while start < len(words):
            native = words[start : start + look].astype(np.uint64)
            count = _leading(((native & fmt.FLAGS) == flags) & (native < length))
            parts.append(native[:count] >> _PAGE_BITS)
            if count < len(native):
                break
            start += count
            look *= 16
        return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _leading(good: npt.NDArray[np.bool_]) -> int:
    """How many are true before the first that is not."""
    return len(good) if good.all() else int(good.argmin())


def _name_at(view: memoryview, position: int) -> bytes | None:
    """A name that follows its length in one byte, or None if it is not there as a whole."""
    if position >= len(view):
        return None
    end = position + 1 + view[position]
    return bytes(view[position + 1 : end]) if end <= len(view) else None


def _text(name: bytes) -> str:
    """A block's name as text, empty if it is none: names are printable ASCII."""
    text = name.decode("latin-1")
    return text if text.isascii() and text.isprintable() else ""
