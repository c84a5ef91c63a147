"""A carrier that somebody has taken over: once it hears its peer it tries what a carrier must not.

``python -m tests.carrier.mutineer`` is a real carrier up to that point. It writes a line for each deed to its
standard error: the name, and the errno that it got, or "done".
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from relocd.carrier.lanes import Lane
from relocd.carrier.main import main
from relocd.carrier.memory import WRITE_BYTES_MAX, MemoryFile
from relocd.carrier.side import Side
from relocd.carrier.target import Target
from relocd.pages.items import PAGE_SIZE

_libc = ctypes.CDLL(None, use_errno=True)
_PR_SET_DUMPABLE = 4


def _call(name: str, *arguments: object) -> None:
    """By way of libc, since Python has no name for it. Raises OSError."""
    if getattr(_libc, name)(*arguments) < 0:
        raise OSError(ctypes.get_errno(), name)


def _connect_to_itself() -> None:
    """A socket that it has, used for a connection of its own."""
    _call("connect", 3, b"\x01\x00/run/relocd/control.sock\x00", 26)


#: What is refused, and leaves the process as it was.
REFUSED: dict[str, Callable[[], object]] = {
    "read a file": lambda: os.open("/etc/passwd", os.O_RDONLY),
    "write a file": lambda: os.open("/tmp", os.O_WRONLY | os.O_TMPFILE),
    "list a directory": lambda: list(Path("/").iterdir()),
    "look at a file": lambda: Path("/etc/passwd").stat(),
    "remove a file": lambda: Path("/tmp/mutiny").unlink(),
    "rename a file": lambda: Path("/tmp/mutiny").rename("/tmp/mutiny2"),
    "link a file": lambda: Path("/tmp/mutiny").symlink_to("/etc/passwd"),
    "change a file's mode": lambda: Path("/tmp/mutiny").chmod(0o777),
    "go elsewhere": lambda: os.chdir("/tmp"),
    "make a socket": lambda: socket.socket(socket.AF_INET),
    "make a unix socket": lambda: socket.socket(socket.AF_UNIX),
    "make a netlink socket": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW),
    "make a pair of sockets": socket.socketpair,
    "connect a socket": _connect_to_itself,
    "make a pipe": os.pipe,
    "make a file in memory": lambda: os.memfd_create("mutiny"),
    "become a process more": lambda: _call("syscall", 56, signal.SIGCHLD, 0, 0, 0, 0),  # clone(2) on x86-64
    "send a signal": lambda: os.kill(os.getppid(), 0),
    "hold a process": lambda: os.pidfd_open(os.getppid()),
    "become root": lambda: os.setuid(0),
    "be looked into": lambda: _call("prctl", _PR_SET_DUMPABLE, 1, 0, 0, 0),
    "make memory executable": lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC),
    "mount": lambda: _call("mount", b"none", b"/mnt", b"tmpfs", 0, None),
    "leave its namespaces": lambda: _call("unshare", 0x10000000),
    "set the host's name": lambda: socket.sethostname("mutiny"),
    "make keys": lambda: _call("syscall", 248, b"user", b"x", b"x", 1, -1),  # add_key(2) on x86-64
    "watch the kernel": lambda: _call("syscall", 298, 0, 0, -1, -1, 0),  # perf_event_open(2) on x86-64
}

#: What ends the process.
DEADLY: dict[str, Callable[[], object]] = {
    "run a program": lambda: os.execv("/bin/true", ["true"]),
    "run a program by descriptor": lambda: _call(
        "syscall", 322, 0, b"", None, None, 0x1000
    ),  # execveat(2) on x86-64
    "fork": lambda: _call("syscall", 57),  # fork(2) on x86-64; the library's goes by clone(2)
    "trace": lambda: _call("ptrace", 16, os.getppid(), 0, 0),  # PTRACE_ATTACH
    "read another process": lambda: _call("process_vm_readv", os.getppid(), None, 0, None, 0, 0),
    "write another process": lambda: _call("process_vm_writev", os.getppid(), None, 0, None, 0, 0),
}


def outcome(deed: Callable[[], object]) -> str:
    """What comes of it."""
    try:
        deed()
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, "?")
    return "done"


def _mutiny(self: Target, lane: Lane) -> None:
    for name, deed in REFUSED.items():
        os.write(2, f"{name}: {outcome(deed)}\n".encode())
    os._exit(0)


def _mutiny_with_memory(self: Side, sock: socket.socket, channels: Sequence[socket.socket] = ()) -> None:
    """The same by one that has been given the guest's memory, begin and end of which it knows."""
    assert isinstance(self, Target)
    placement = self._placement
    assert placement is not None
    memory = placement._memory
    assert isinstance(memory, MemoryFile)
    descriptor, begin, end = memory._descriptor, memory._begin, memory._tail + WRITE_BYTES_MAX
    deeds: dict[str, Callable[[], object]] = {
        "write inside": lambda: os.pwrite(descriptor, bytes(PAGE_SIZE), begin),
        "write the last page": lambda: os.pwrite(descriptor, bytes(PAGE_SIZE), end - PAGE_SIZE),
        "write before": lambda: os.pwrite(descriptor, bytes(PAGE_SIZE), begin - PAGE_SIZE),
        "write behind": lambda: os.pwrite(descriptor, bytes(PAGE_SIZE), end),
        "write over the end": lambda: os.pwrite(descriptor, bytes(2 * PAGE_SIZE), end - PAGE_SIZE),
        "write far away": lambda: os.pwrite(descriptor, bytes(PAGE_SIZE), begin + (1 << 33)),
        "write where it stands": lambda: os.write(descriptor, b"x"),
        "write in pieces": lambda: os.pwritev(descriptor, [b"x"], begin - PAGE_SIZE),
        "map": lambda: mmap.mmap(descriptor, PAGE_SIZE),
        "double": lambda: os.dup(descriptor),
        "give away": lambda: socket.send_fds(sock, [b"x"], [descriptor]),
        "take the filter off": lambda: _call("prctl", 22, 0, 0, 0, 0),  # PR_SET_SECCOMP
    }
    for name, deed in deeds.items():
        os.write(2, f"{name}: {outcome(deed)}\n".encode())
    os._exit(0)


if __name__ == "__main__":
    # That is the mutiny: by one that hears the peer at once, or one that waits for the guest's memory first.
    if "MUTINY_WITH_MEMORY" in os.environ:
        Target.give_stream = _mutiny_with_memory  # type: ignore[method-assign]
    else:
        Target._move = _mutiny  # type: ignore[method-assign]
    main(sys.argv[1:])
