"""Boot files as they arrive: nothing is taken that was not agreed on."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence

from relocd.carrier.control import FileSpec
from relocd.errors import StreamError
from relocd.pages.frames import FileEnd
from relocd.pages.items import Buffer


class FileSink:
    """Writes files one after the other into descriptors that it was given, and closes them."""

    def __init__(self, specs: Sequence[FileSpec], descriptors: Sequence[int]) -> None:
        self._specs = list(specs)
        self._descriptors = list(descriptors)
        self._index = 0
        self._size = 0
        self._hash = hashlib.sha256()

    @property
    def complete(self) -> bool:
        """Whether all files are there."""
        return self._index == len(self._specs)

    def write(self, data: Buffer) -> None:
        """The next piece of the current file. Raises StreamError if it is longer than agreed on, or too
        many."""
        if self.complete:
            raise StreamError("the peer sends a boot file that was not agreed on")
        size = self._specs[self._index].size_bytes
        if self._size + len(data) > size:
            raise StreamError(f"boot file {self._index} is longer than the {size} bytes agreed on")
        left = memoryview(data)
        while len(left):
            left = left[os.write(self._descriptors[self._index], left) :]
        self._hash.update(data)
        self._size += len(data)

    def end(self, end: FileEnd) -> int:
        """The current file is complete: check it, and return its index. Raises StreamError."""
        if self.complete or (end.index, end.size_bytes) != (self._index, self._size):
            raise StreamError("boot files are mixed up: an end of a file that was not sent")
        spec = self._specs[self._index]
        if self._size != spec.size_bytes or self._hash.hexdigest() != spec.sha256:
            raise StreamError(f"boot file {self._index} is not the one that was agreed on")
        os.close(self._descriptors[self._index])
        self._index += 1
        self._size = 0
        self._hash = hashlib.sha256()
        return end.index
