"""The parts of Xen's streams that decoder and encoder must know. ``docs/xen-stream.md`` tells how they nest.

Source: Xen's docs/specs/libxl-migration-stream.pandoc and libxc-migration-stream.pandoc, the headers
libxl_sr_stream_format.h and xg_sr_stream_format.h, tools/xl/xl.h, and streams recorded from Xen 4.17.
"""

from __future__ import annotations

import struct
from typing import Final

XL_MAGIC: Final = b"Xen saved domain, xl format\n \0 \r"
XL_FIELDS: Final = struct.Struct(f"<{len(XL_MAGIC)}xIIII")
"""Byte order mark, mandatory flags, optional flags, bytes of the optional data that follow."""
XL_BYTE_ORDER: Final = 0x01020304
XL_JSON: Final = 1
XL_STREAM_V2: Final = 2
XL_FLAGS: Final = frozenset({XL_STREAM_V2, XL_STREAM_V2 | XL_JSON})
"""Mandatory flags under which a libxl stream follows."""

LIBXL_MAGIC: Final = b"LibxlFmt"
LIBXL_FIELDS: Final = struct.Struct(f">{len(LIBXL_MAGIC)}xII")
"""Version, options; big-endian, always."""
LIBXL_VERSION: Final = 2
LIBXL_OPTIONS: Final = frozenset({0, 2})
"""Little-endian records; 2: made from a stream of the time before."""
LIBXL_END: Final = 0
LIBXL_LIBXC_CONTEXT: Final = 1
LIBXL_CHECKPOINT_END: Final = 4
LIBXL_PLAIN: Final = frozenset({2, 3, 5})
"""EMULATOR_XENSTORE_DATA, EMULATOR_CONTEXT, CHECKPOINT_STATE: a body, and after it the next record."""

OPTIONAL: Final = 1 << 31
"""A record of an unknown type with this bit may be skipped, so its length says where the next one begins."""

LIBXC_MAGIC: Final = b"\xff" * 8 + b"XENF"
LIBXC_FIELDS: Final = struct.Struct(f">{len(LIBXC_MAGIC)}xIHHI")
"""Version, options, reserved, reserved; big-endian, always."""
LIBXC_VERSIONS: Final = frozenset({2, 3})
DOMAIN_FIELDS: Final = struct.Struct("<IHHII")
"""Kind of domain, log2 of the page size, reserved, Xen's version."""

RECORD: Final = struct.Struct("<II")
"""Type and bytes of the body, which is padded to RECORD_ALIGN. The same in libxl's and in libxc's stream."""
RECORD_ALIGN: Final = 8
RECORD_BYTES_MAX: Final = 128 << 20
"""What libxc takes (REC_LENGTH_MAX)."""
END: Final = 0
PAGE_DATA: Final = 1
CHECKPOINT: Final = 14

PAGE_DATA_FIELDS: Final = struct.Struct("<IIII")
"""A record's header, and in its body: number of entries, reserved. Entries follow, then pages."""
ENTRY_BYTES: Final = 8
TYPE_SHIFT: Final = 60
"""An entry is 64 bits: the page's number below, 8 bits that are zero, and its type in the highest four."""
RESERVED: Final = 0xFF << 52
TYPES_WITH_PAGE: Final = frozenset({0, 1, 2, 3, 4, 9, 10, 11, 12})
"""A normal page; page tables of four levels, pinned or not."""
TYPES_WITHOUT_PAGE: Final = frozenset({13, 14, 15})
"""Broken; allocate only; invalid. The other types do not exist."""
ENTRIES_MAX: Final = 4096
"""Entries of a record that are looked at. Xen writes 1024 (MAX_BATCH_SIZE); a record with more passes as a span."""
REST_BYTES_MAX: Final = ENTRIES_MAX * ENTRY_BYTES
"""The longest part of a stream that must be seen as a whole."""
