"""A program for the kernel's packet filter (the classic one): frames that a guest sends itself.

Without it every frame of the host would wake relocd while it waits for a guest's first one. Instructions as in
linux/filter.h: code, where to go on if true, if false, operand.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

from relocd.segment.announce import ETHERTYPE_RARP

_INSTRUCTION = struct.Struct("=HBBI")
_LOAD_WORD, _LOAD_HALF, _JUMP_EQUAL, _RETURN = 0x20, 0x28, 0x15, 0x06
_SOURCE, _SOURCE_END, _TYPE = 6, 10, 12

#: So much of a frame is handed over.
SEEN_BYTES: Final = 64


def from_guests(macs: Sequence[bytes]) -> bytes:
    """Let pass what has one of these as its source, except RARP, which hypervisors send in a guest's name."""
    code: list[tuple[int, int, int, int]] = []
    for number, mac in enumerate(macs):
        left = 4 * (len(macs) - number - 1) + 1  # instructions up to the test of the type
        high, low = struct.unpack("!IH", mac)
        code += [
            (_LOAD_WORD, 0, 0, _SOURCE),
            (_JUMP_EQUAL, 0, 2, high),
            (_LOAD_HALF, 0, 0, _SOURCE_END),
            (_JUMP_EQUAL, left, 0, low),
        ]
    code += [
        (_RETURN, 0, 0, 0),
        (_LOAD_HALF, 0, 0, _TYPE),
        (_JUMP_EQUAL, 0, 1, ETHERTYPE_RARP),
        (_RETURN, 0, 0, 0),
        (_RETURN, 0, 0, SEEN_BYTES),
    ]
    return b"".join(_INSTRUCTION.pack(*instruction) for instruction in code)
