"""What encoders of all formats share: memory for a batch's bytes, and spans. ``decoder`` has the law for both."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from relocd.errors import StreamError
from relocd.pages.items import Item, Octets, Span


class Encoder:
    """Items in, bytes out. Keeps no state of the stream, only memory that it uses again.

    By itself it knows spans; one for a format knows the items of that format's decoder as well.
    """

    def __init__(self) -> None:
        self._memory: Octets = np.empty(0, np.uint8)

    def encode(self, items: Iterable[Item]) -> memoryview:
        """The bytes that these items were decoded from, good until the next call. Raises StreamError."""
        batch = list(items)
        sizes = [self.encoded_bytes(item) for item in batch]
        size = sum(sizes)
        if size > len(self._memory):
            self._memory = np.empty(size, np.uint8)
        position = 0
        for item, item_bytes in zip(batch, sizes, strict=True):
            end = position + item_bytes
            self._write(item, self._memory[position:end])
            position = end
        return self._memory[:size].data

    def encoded_bytes(self, item: Item) -> int:
        """How many bytes of the stream an item stands for. Raises StreamError for one of another format."""
        if isinstance(item, Span):
            return len(item.data)
        raise StreamError(f"a stream of this format has no item {type(item).__name__}")

    def _write(self, item: Item, out: Octets) -> None:
        """Fill ``out``, which has the item's encoded_bytes."""
        if isinstance(item, Span):
            out[:] = np.frombuffer(item.data, np.uint8)
