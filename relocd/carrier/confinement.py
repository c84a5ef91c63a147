"""A descriptor that can do more than it is meant for, tied down by the kernel before a peer is heard.

The guest's memory comes as /proc/PID/mem, which is all of the hypervisor's memory. A filter of system calls
(seccomp(2), by way of libseccomp) leaves one use of it: pwrite(2) inside the guest's memory. It holds for every
thread and cannot be taken off. Whatever else takes a descriptor, or makes another one of it, fails with EPERM.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from relocd.carrier import filters
from relocd.carrier.filters import seccomp
from relocd.carrier.memory import WRITE_BYTES_MAX
from relocd.errors import DriverError
from relocd.pages.items import PAGE_SIZE

_HINT: Final = "Set xen-relocation-direct-placement to no on the target, and try again."

_DESCRIPTOR_BITS: Final = 0xFFFFFFFF
"""The kernel does not look at the upper half of the argument, so the filter must not either."""

#: System calls that must not get the descriptor, and which of their arguments it would be.
_REFUSED: Final[Mapping[str, int]] = {
    "write": 0,
    "writev": 0,
    "pwritev": 0,
    "pwritev2": 0,
    "lseek": 0,
    "ioctl": 0,
    "fcntl": 0,
    "dup": 0,
    "dup2": 0,
    "dup3": 0,
    "sendfile": 0,
    "splice": 2,
    "copy_file_range": 2,
    "mmap": 4,
}

#: Ways to a second descriptor of the same file, or to a write that is not seen as one: refused altogether.
_REFUSED_TO_ALL: Final = (
    "socket",
    "socketpair",
    "pidfd_getfd",
    "io_setup",
    "io_uring_setup",
    "execve",
    "execveat",
    "ptrace",
    "process_vm_writev",
)


def confine(descriptor: int, begin: int, size_bytes: int) -> None:
    """From now on this process can use a descriptor only to write there, page by page near the end.

    Raises DriverError if this host has no such filters.
    """
    filters.require()
    end = begin + size_bytes
    outside = (
        (seccomp.Arg(3, seccomp.LT, begin),),
        (seccomp.Arg(3, seccomp.GT, end - PAGE_SIZE),),
        (seccomp.Arg(2, seccomp.GT, WRITE_BYTES_MAX),),
        (seccomp.Arg(3, seccomp.GT, end - WRITE_BYTES_MAX), seccomp.Arg(2, seccomp.GT, PAGE_SIZE)),
    )
    try:
        filters.refuse({call: (_is(descriptor, argument),) for call, argument in _REFUSED.items()})
        filters.refuse(dict.fromkeys(_REFUSED_TO_ALL, ()))
        for arguments in outside:
            filters.refuse({"pwrite64": (_is(descriptor, 0), *arguments)})
    except OSError as error:
        reason = f"the guest's memory cannot be written safely: seccomp: {error.strerror}"
        raise DriverError(reason, hint=_HINT) from error


def _is(descriptor: int, argument: int) -> seccomp.Arg:
    return seccomp.Arg(argument, seccomp.MASKED_EQ, _DESCRIPTOR_BITS, descriptor)
