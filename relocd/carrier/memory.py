"""A guest's memory, as a part of a file that its hypervisor works on.

It is written with pwrite(2). Nothing of it is mapped, so the hypervisor's doings cannot make this process fault.
"""

from __future__ import annotations

import os
from typing import Final

import numpy as np

from relocd.errors import DriverError
from relocd.pages.items import PAGE_SIZE, Octets

WRITE_BYTES_MAX: Final = 256 << 10
"""No write is longer: a filter of system calls (relocd.carrier.confinement) cannot add up where it begins and how
long it is, so at less than this from the end writes are single pages."""

_ZEROS: Final = memoryview(bytes(WRITE_BYTES_MAX))


class MemoryFile:
    """See :class:`relocd.pages.placement.Memory`. It begins at ``begin`` in the file; ``descriptor`` is kept."""

    def __init__(self, descriptor: int, begin: int, size_bytes: int) -> None:
        self._descriptor = descriptor
        self._begin = begin
        self._tail = begin + size_bytes - WRITE_BYTES_MAX

    def write(self, offset: int, contents: Octets) -> None:
        """Put these rows there. Raises DriverError."""
        data = np.ascontiguousarray(contents).reshape(-1).data
        place = self._begin + offset
        while len(data):
            done = self._write(place, data)
            data, place = data[done:], place + done

    def clear(self, offset: int, size: int) -> None:
        """Have it read as zeros. Raises DriverError."""
        place, end = self._begin + offset, self._begin + offset + size
        while place < end:
            place += self._write(place, _ZEROS[: end - place])

    def _write(self, place: int, data: memoryview) -> int:
        piece = data[: PAGE_SIZE if place > self._tail else WRITE_BYTES_MAX]
        try:
            done = os.pwrite(self._descriptor, piece, place)
        except OSError as error:
            raise DriverError(f"the guest's memory cannot be written: {error.strerror or error}") from None
        if not done:
            raise DriverError("the guest's memory is gone: its hypervisor has ended")
        return done
