"""A guest's memory, as the file that its hypervisor has mapped.

It is written with pwrite(2), not by way of a mapping: a page that is written as a whole for the first time
need not be cleared before, and no fault is taken for it, which halves the cost of a page. Nor can the hypervisor's
doings make this process fault.
"""

from __future__ import annotations

import errno
import os
from typing import Final

import numpy as np

from relocd.errors import DriverError
from relocd.pages.items import Octets

_ZEROS: Final = memoryview(bytes(256 << 10))


class MemoryFile:
    """See :class:`relocd.pages.placement.Memory`. ``descriptor`` is of a tmpfs file or memfd, and is kept."""

    def __init__(self, descriptor: int, size_bytes: int) -> None:
        """Raises DriverError if the file has another size."""
        found = os.fstat(descriptor).st_size
        if found != size_bytes:
            raise DriverError(f"the guest's memory has {found} bytes instead of {size_bytes}")
        self._descriptor = descriptor

    def write(self, offset: int, contents: Octets) -> None:
        """Put these rows there. Raises DriverError."""
        self._write(offset, np.ascontiguousarray(contents).reshape(-1).data)

    def clear(self, offset: int, size: int) -> None:
        """Have it read as zeros. Raises DriverError.

        What was never written has no memory yet, and gets none: the kernel knows which parts these are.
        """
        end = offset + size
        while (offset := self._seek(offset, os.SEEK_DATA, end)) < end:
            hole = self._seek(offset, os.SEEK_HOLE, end)
            while offset < hole:
                piece = _ZEROS[: hole - offset]
                self._write(offset, piece)
                offset += len(piece)

    def _seek(self, offset: int, whence: int, end: int) -> int:
        """Where data (or a hole) begins, at ``end`` if not before."""
        try:
            return min(end, os.lseek(self._descriptor, offset, whence))
        except OSError as error:
            if error.errno == errno.ENXIO:  # no data from here on
                return end
            raise _lost(error) from None

    def _write(self, offset: int, data: memoryview) -> None:
        try:
            while len(data):
                done = os.pwrite(self._descriptor, data, offset)
                data, offset = data[done:], offset + done
        except OSError as error:
            raise _lost(error) from None


def _lost(error: OSError) -> DriverError:
    return DriverError(f"the guest's memory cannot be written: {error.strerror or error}")
