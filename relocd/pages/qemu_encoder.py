"""Items back to QEMU's stream. The counterpart of ``qemu_decoder``."""

from __future__ import annotations

from typing import Final

import numpy as np

from relocd.pages import qemu_format as fmt
from relocd.pages.encoder import Encoder
from relocd.pages.items import PAGE_SIZE, Item, Numbers, Octets, PageRun, ZeroRun

_BE64: Final = np.dtype(">u8")
_PAGE_BITS: Final = np.uint64(PAGE_SIZE.bit_length() - 1)


class QemuEncoder(Encoder):
    """See :class:`relocd.pages.encoder.Encoder`."""

    def encoded_bytes(self, item: Item) -> int:
        if not isinstance(item, PageRun | ZeroRun):
            return super().encoded_bytes(item)
        name = 1 + len(item.block) if item.named else 0
        stride = fmt.PAGE_STRIDE if isinstance(item, PageRun) else fmt.ZERO_STRIDE
        return name + stride * len(item.numbers)

    def _write(self, item: Item, out: Octets) -> None:
        match item:
            case PageRun(contents=contents):
                _write_records(item, fmt.PAGE, contents, out)
            case ZeroRun():
                _write_records(item, fmt.ZERO, 0, out)
            case _:
                super()._write(item, out)


def _write_records(item: PageRun | ZeroRun, flag: int, contents: Octets | int, out: Octets) -> None:
    rows = len(item.numbers)
    if item.named:
        name = item.block.encode("ascii")
        label = np.frombuffer(bytes([len(name)]) + name, np.uint8)
        out[fmt.WORD.size : fmt.WORD.size + len(label)] = label
        out[: fmt.WORD.size] = _words(item.numbers, flag)[0]
        out[fmt.WORD.size + len(label) :] = contents if isinstance(contents, int) else contents[0]
    else:
        records = out.reshape(rows, -1)
        records[:, : fmt.WORD.size] = _words(item.numbers, flag | fmt.CONTINUE)
        records[:, fmt.WORD.size :] = contents


def _words(numbers: Numbers, flags: int) -> Octets:
    """The first eight bytes of each record, one row a record."""
    words = (numbers << _PAGE_BITS) | np.uint64(flags)
    return words.astype(_BE64).view(np.uint8).reshape(-1, fmt.WORD.size)
