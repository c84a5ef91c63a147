"""Items back to Xen's streams. The counterpart of ``xen_decoder``."""

from __future__ import annotations

from typing import Final

import numpy as np

from relocd.pages.encoder import Encoder
from relocd.pages.items import PAGE_SIZE, BarePages, Item, NumberTable, Octets
from relocd.pages.xen_format import ENTRY_BYTES

_LE64: Final = np.dtype("<u8")


class XenEncoder(Encoder):
    """See :class:`relocd.pages.encoder.Encoder`."""

    def encoded_bytes(self, item: Item) -> int:
        match item:
            case NumberTable(numbers=numbers):
                return len(numbers) * ENTRY_BYTES
            case BarePages(filled=filled):
                return len(filled) * PAGE_SIZE
            case _:
                return super().encoded_bytes(item)

    def _write(self, item: Item, out: Octets) -> None:
        match item:
            case NumberTable(numbers=numbers):
                out[:] = numbers.astype(_LE64).view(np.uint8)
            case BarePages(filled=filled, contents=contents):
                rows = out.reshape(-1, PAGE_SIZE)
                if len(contents) == len(filled):
                    rows[:] = contents
                else:
                    rows[filled] = contents
                    rows[~filled] = 0
            case _:
                super()._write(item, out)
