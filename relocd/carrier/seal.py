"""What a carrier can still ask of the kernel once it is to hear a peer: next to nothing.

It moves bytes between descriptors that it has, and takes memory, threads and the time for that. It opens no file, no
socket and no second process, and looks at none. What the daemon sends later comes by recvmsg(2).

A call that is not listed fails with EPERM: a library that tries one on the way does without, and what cannot do
without ends the relocation with that reason. Calls that only an intruder makes end the process at once, which the
kernel's audit log tells, too. Either way the domain stays where it is.
"""

from __future__ import annotations

import mmap
import resource
from pathlib import Path
from typing import Final

from relocd.carrier import filters
from relocd.carrier.filters import seccomp
from relocd.errors import DriverError

MEMORY_BYTES: Final = 1 << 30
"""What a carrier may take beyond what it has when it begins. 15 lanes need about 100 MiB, of which thread stacks are
half; 1 GiB is room for allocators, and keeps one that was made to take memory from taking the host's."""

_CLONE_THREAD: Final = 0x00010000  # linux/sched.h

#: Bytes through descriptors that are there already, and what is done to those. sendmsg(2) would pass descriptors on.
_DESCRIPTORS: Final = (
    *(
        "read",
        "readv",
        "pread64",
        "preadv",
        "preadv2",
        "write",
        "writev",
        "pwrite64",
        "recvfrom",
        "recvmsg",
        "sendto",
    ),
    *("poll", "ppoll", "close", "shutdown", "dup", "fcntl", "ioctl", "lseek", "fstat"),
    *("getsockopt", "setsockopt", "getsockname", "getpeername"),
)
#: Memory, threads, signals, time: what the C library and Python need to run at all.
_OURSELVES: Final = (
    *("brk", "mmap", "munmap", "mremap", "mprotect", "madvise"),
    *("clone", "set_robust_list", "rseq", "futex", "sched_yield", "sched_getaffinity", "gettid", "getpid"),
    *("rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigaltstack", "tgkill", "restart_syscall"),
    *("clock_gettime", "clock_getres", "clock_nanosleep", "nanosleep", "gettimeofday", "getrandom"),
    *("exit", "exit_group"),
    "seccomp",  # another filter: see relocd.carrier.confinement
)
#: The C library falls back to clone(2), whose flags can be looked at.
_UNKNOWN: Final = ("clone3",)
_DEADLY: Final = (
    "execve",
    "execveat",
    "fork",
    "vfork",
    "ptrace",
    "process_vm_readv",
    "process_vm_writev",
    "bpf",
)


def seal() -> None:
    """Give up everything but what moving bytes takes. Raises DriverError if this host cannot."""
    filters.require()
    _limit_memory()
    try:
        filters.allow_only((*_DESCRIPTORS, *_OURSELVES), unknown=_UNKNOWN, deadly=_DEADLY)
        executable = seccomp.Arg(2, seccomp.MASKED_EQ, mmap.PROT_EXEC, mmap.PROT_EXEC)
        filters.refuse(
            {
                "clone": (seccomp.Arg(0, seccomp.MASKED_EQ, _CLONE_THREAD, 0),),  # a process, not a thread
                "mmap": (executable,),
                "mprotect": (executable,),
            }
        )
    except OSError as error:
        reason = f"what a peer sends cannot be read safely: seccomp: {error.strerror}"
        raise DriverError(reason, hint=filters.HINT) from error


def _limit_memory() -> None:
    """Bound what is private and can be written (setrlimit(2), RLIMIT_DATA), thread stacks included."""
    (line,) = [row for row in Path("/proc/self/status").read_text().splitlines() if row.startswith("VmData:")]
    most = (int(line.split()[1]) << 10) + MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))
