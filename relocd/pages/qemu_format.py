"""The parts of QEMU's migration stream that decoder and encoder must agree on. All numbers are big-endian.

Source: QEMU's migration/savevm.c and migration/ram.c, versions 7.2 to 10.0 (docs/devel/migration), and
streams recorded from QEMU 7.2 and 10.0.
"""

from __future__ import annotations

import struct
from typing import Final

from relocd.pages.items import PAGE_SIZE

HEADER: Final = b"QEVM" + (3).to_bytes(4, "big")
"""File magic and version (QEMU_VM_FILE_MAGIC, QEMU_VM_FILE_VERSION)."""

SECTION_START: Final = 0x01
SECTION_PART: Final = 0x02
SECTION_END: Final = 0x03
SUBSECTION: Final = 0x05
CONFIGURATION: Final = 0x07
COMMAND: Final = 0x08
SECTION_FOOTER: Final = 0x7E

RAM_ID: Final = b"ram"
RAM_INSTANCE_AND_VERSION: Final = (0, 4)

COMMANDS: Final = frozenset({1, 2, 11})
"""OPEN_RETURN_PATH, PING, SWITCHOVER_START. The others belong to postcopy and COLO and change what
follows."""

SUBSECTIONS: Final = {b"configuration/uuid": 16}
"""Payload sizes. The other two known ones announce page sizes and capabilities that change the format of
RAM."""

FLAGS: Final = PAGE_SIZE - 1
"""A record starts with 64 bits: the page's offset in its block, and flags in the bits that an offset leaves
free."""
ZERO: Final = 0x02
MEM_SIZE: Final = 0x04
PAGE: Final = 0x08
END_OF_PAYLOAD: Final = 0x10
CONTINUE: Final = 0x20
"""Same block as in the record before, also across sections; the name is left out."""

WORD: Final = struct.Struct(">Q")
PAGE_STRIDE: Final = WORD.size + PAGE_SIZE
"""Bytes of a record with a page and without a name."""
ZERO_STRIDE: Final = WORD.size + 1
"""Bytes of a record for a zero page without a name: the last byte is what to fill with, always 0."""
RECORD_BYTES_MAX: Final = WORD.size + 1 + 255 + PAGE_SIZE
"""The longest record, and more than any other part that must be seen as a whole."""
