"""Xen's streams to items; ``xen_encoder`` is the way back, ``decoder`` has the law.

Three formats nest: xl's header, libxl's records, libxc's records; a stream may begin with any of them. All records
say how long they are. So one that is not understood, but well formed, passes as a span, and the next one is looked
at. The body of PAGE_DATA is a table with an entry for each page, and then the pages, bare; so they become a number
table and bare pages. Xen has no record for zero pages: they are found by looking at all of them.
"""

from __future__ import annotations

import struct
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from relocd.pages import xen_format as fmt
from relocd.pages.decoder import Decoder, Found
from relocd.pages.items import PAGE_SIZE, BarePages, Flags, Numbers, NumberTable, Octets
from relocd.pages.ranges import RANGE_BYTES, stretches

_LE64: Final = np.dtype("<u8")
_TYPE_SHIFT: Final = np.uint64(fmt.TYPE_SHIFT)
_RESERVED: Final = np.uint64(fmt.RESERVED)
_PAGE_SHIFT: Final = PAGE_SIZE.bit_length() - 1


def _chosen(types: frozenset[int]) -> npt.NDArray[np.bool_]:
    return np.isin(np.arange(1 << 4), list(types))


_WITH_PAGE: Final = _chosen(fmt.TYPES_WITH_PAGE)
_KNOWN: Final = _chosen(fmt.TYPES_WITH_PAGE | fmt.TYPES_WITHOUT_PAGE)


class XenDecoder(Decoder):
    """See :class:`relocd.pages.decoder.Decoder`. What it leaves of a buffer is less than REST_BYTES_MAX."""

    def __init__(self) -> None:
        super().__init__(self._start)
        self._in_libxl = False
        self._at_checkpoint = False
        self._entries = 0
        self._table_and_pages_bytes = 0
        self._pages_left = 0

    # Headers. All are little beside REST_BYTES_MAX.

    def _start(self, view: memoryview, position: int) -> Found:
        beginnings = {
            fmt.XL_MAGIC[0]: self._xl_header,
            fmt.LIBXL_MAGIC[0]: self._libxl_header,
            fmt.LIBXC_MAGIC[0]: self._libxc_header,
        }
        self._step = beginnings.get(view[position], self._rest)
        return position, None

    def _xl_header(self, view: memoryview, position: int) -> Found | None:
        if _differs(view, position, fmt.XL_MAGIC):
            return self._lost(position)
        fields = _fields(view, position, fmt.XL_FIELDS)
        if fields is None:
            return None
        order, mandatory, _, optional_bytes = fields
        if order != fmt.XL_BYTE_ORDER or mandatory not in fmt.XL_FLAGS:
            return self._lost(position)
        return self._skip(position + fmt.XL_FIELDS.size, optional_bytes, self._libxl_header)

    def _libxl_header(self, view: memoryview, position: int) -> Found | None:
        if _differs(view, position, fmt.LIBXL_MAGIC):
            return self._lost(position)
        fields = _fields(view, position, fmt.LIBXL_FIELDS)
        if fields is None:
            return None
        version, options = fields
        if version != fmt.LIBXL_VERSION or options not in fmt.LIBXL_OPTIONS:
            return self._lost(position)
        self._in_libxl = True
        self._step = self._libxl_record
        return position + fmt.LIBXL_FIELDS.size, None

    def _libxc_header(self, view: memoryview, position: int) -> Found | None:
        if _differs(view, position, fmt.LIBXC_MAGIC):
            return self._lost(position)
        fields = _fields(view, position, fmt.LIBXC_FIELDS)
        if fields is None:
            return None
        version, options, *reserved = fields
        if version not in fmt.LIBXC_VERSIONS or options or any(reserved):
            return self._lost(position)
        self._step = self._domain_header
        return position + fmt.LIBXC_FIELDS.size, None

    def _domain_header(self, view: memoryview, position: int) -> Found | None:
        fields = _fields(view, position, fmt.DOMAIN_FIELDS)
        if fields is None:
            return None
        if fields[1] != _PAGE_SHIFT:
            return self._lost(position)
        self._step = self._libxc_record
        return position + fmt.DOMAIN_FIELDS.size, None

    # Records.

    def _libxl_record(self, view: memoryview, position: int) -> Found | None:
        fields = _fields(view, position, fmt.RECORD)
        if fields is None:
            return None
        kind, size = fields
        end = position + fmt.RECORD.size
        if kind in fmt.LIBXL_PLAIN or kind & fmt.OPTIONAL:
            return self._skip(end, _padded(size), self._libxl_record)
        if size:
            return self._lost(position)
        if kind == fmt.LIBXL_END:
            return self._end(end)
        if kind == fmt.LIBXL_LIBXC_CONTEXT:
            self._step = self._libxc_header
        elif kind == fmt.LIBXL_CHECKPOINT_END and self._at_checkpoint:
            self._at_checkpoint = False
            self._step = self._libxc_record
        else:
            return self._lost(position)
        return end, None

    def _libxc_record(self, view: memoryview, position: int) -> Found | None:
        fields = _fields(view, position, fmt.RECORD)
        if fields is None:
            return None
        kind, size = fields
        end = position + fmt.RECORD.size
        if size > fmt.RECORD_BYTES_MAX or (size and kind in (fmt.END, fmt.CHECKPOINT)):
            return self._lost(position)
        if kind == fmt.PAGE_DATA:
            self._step = self._page_data
            return position, None
        if kind == fmt.END and not self._in_libxl:
            return self._end(end)
        if kind in (fmt.END, fmt.CHECKPOINT) and self._in_libxl:
            self._at_checkpoint = kind == fmt.CHECKPOINT
            self._step = self._libxl_record
            return end, None
        return self._skip(end, _padded(size), self._libxc_record)

    def _end(self, position: int) -> Found:
        self._memory_ended = True
        self._step = self._rest
        return position, None

    # Pages.

    def _page_data(self, view: memoryview, position: int) -> Found | None:
        fields = _fields(view, position, fmt.PAGE_DATA_FIELDS)
        if fields is None:
            return None
        _, size, entries, reserved = fields
        self._entries = entries
        self._table_and_pages_bytes = size + fmt.RECORD.size - fmt.PAGE_DATA_FIELDS.size
        if reserved or not entries or self._table_and_pages_bytes < entries * fmt.ENTRY_BYTES:
            return self._lost(position)
        end = position + fmt.PAGE_DATA_FIELDS.size
        if entries > fmt.ENTRIES_MAX:
            return self._skip(end, _padded(self._table_and_pages_bytes), self._libxc_record)
        self._step = self._table
        return end, None

    def _table(self, view: memoryview, position: int) -> Found | None:
        size = self._entries * fmt.ENTRY_BYTES
        if len(view) - position < size:
            return None
        entries: Numbers = np.ndarray((self._entries,), _LE64, view, position).astype(np.uint64)
        types = entries >> _TYPE_SHIFT
        pages = int(np.count_nonzero(_WITH_PAGE[types]))
        well_formed = _KNOWN[types].all() and not (entries & _RESERVED).any()
        if not well_formed or self._table_and_pages_bytes != size + pages * PAGE_SIZE:
            return self._lost(position)
        self._pages_left = pages
        self._step = self._pages if pages else self._libxc_record
        shrinks = len(stretches(entries)[0]) * RANGE_BYTES < size
        return position + size, NumberTable(entries) if shrinks else None

    def _pages(self, view: memoryview, position: int) -> Found | None:
        count = min(self._pages_left, (len(view) - position) // PAGE_SIZE)
        if not count:
            return None
        self._pages_left -= count
        if not self._pages_left:
            self._step = self._libxc_record
        rows: Octets = np.ndarray((count, PAGE_SIZE), np.uint8, view, position)
        filled: Flags = np.logical_or.reduce(rows, axis=1)
        return position + count * PAGE_SIZE, BarePages(filled, rows if filled.all() else rows[filled])


def _fields(view: memoryview, position: int, layout: struct.Struct) -> tuple[Any, ...] | None:
    """What stands there, or None if it is not there as a whole."""
    return layout.unpack_from(view, position) if len(view) - position >= layout.size else None


def _differs(view: memoryview, position: int, magic: bytes) -> bool:
    head = view[position : position + len(magic)]
    return head != magic[: len(head)]


def _padded(size: int) -> int:
    return -(-size // fmt.RECORD_ALIGN) * fmt.RECORD_ALIGN
