"""Items back to QEMU's stream. The counterpart of ``qemu_decoder``, where the law is written that binds both."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, assert_never

import numpy as np

from relocd.pages import qemu_format as fmt
from relocd.pages.items import PAGE_SIZE, Item, Numbers, Octets, PageRun, Span, ZeroRun

_BE64: Final = np.dtype(">u8")
_PAGE_BITS: Final = np.uint64(PAGE_SIZE.bit_length() - 1)


class QemuEncoder:
    """Items in, bytes out. Keeps no state of the stream, only memory that it uses again."""

    def __init__(self) -> None:
        self._memory: Octets = np.empty(0, np.uint8)

    def encode(self, items: Iterable[Item]) -> memoryview:
        """The bytes that these items were decoded from, good until the next call."""
        batch = list(items)
        size = sum(map(encoded_bytes, batch))
        if size > len(self._memory):
            self._memory = np.empty(size, np.uint8)
        position = 0
        for item in batch:
            end = position + encoded_bytes(item)
            _write(item, self._memory[position:end])
            position = end
        return self._memory[:size].data


def encoded_bytes(item: Item) -> int:
    """How many bytes of QEMU's stream an item stands for."""
    if isinstance(item, Span):
        return len(item.data)
    name = 1 + len(item.block) if item.named else 0
    stride = fmt.PAGE_STRIDE if isinstance(item, PageRun) else fmt.ZERO_STRIDE
    return name + stride * len(item.numbers)


def _write(item: Item, out: Octets) -> None:
    match item:
        case Span(data=data):
            out[:] = np.frombuffer(data, np.uint8)
        case PageRun(contents=contents):
            _write_records(item, fmt.PAGE, contents, out)
        case ZeroRun():
            _write_records(item, fmt.ZERO, 0, out)
        case _:
            assert_never(item)


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
