"""Guest memory that others can write, too: a sealed memfd, mapped by QEMU, without a name in any file system."""

from __future__ import annotations

import errno
import fcntl
import os

from relocd.drivers.base import GuestMemory
from relocd.drivers.qemu.cmdline import MEMORY_BLOCK, memory_bytes
from relocd.drivers.qemu.process import MEMORY_NAME
from relocd.errors import DriverError
from relocd.model import DomainConfig

_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
"""Nobody who is handed the memory can take pages away under the hypervisor, which would kill it."""
_MFD_NOEXEC_SEAL = 0x08  # of linux/memfd.h; Python does not know it yet


def guest_memory(config: DomainConfig) -> GuestMemory:
    """Empty memory for a domain; it takes no room until it is written. Raises DriverError."""
    size_bytes = memory_bytes(config)
    try:
        descriptor = _memfd(f"{MEMORY_NAME}{config.uuid}")
        try:
            os.ftruncate(descriptor, size_bytes)
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
        except BaseException:
            os.close(descriptor)
            raise
    except OSError as error:
        raise DriverError(f"cannot make memory of {size_bytes} bytes: {error.strerror or error}") from None
    return GuestMemory(MEMORY_BLOCK, size_bytes, descriptor)


def _memfd(name: str) -> int:
    """A memfd that can be sealed and is never executed. Kernels before 6.3 do not know the latter, some insist."""
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        return os.memfd_create(name, flags | _MFD_NOEXEC_SEAL)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return os.memfd_create(name, flags)
