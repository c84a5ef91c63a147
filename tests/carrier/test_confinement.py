"""A confined descriptor writes inside the memory that it is for, and nothing else can be done with it.

Each case runs in a process of its own, since a filter is for good.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import random
import signal
import socket
import sys
import threading
from collections.abc import Callable

import pytest

from relocd.carrier.confinement import confine
from relocd.carrier.memory import WRITE_BYTES_MAX

PAGE = 4096
SIZE = 4 << 20
BEGIN = 7 * PAGE


def in_child(story: Callable[[], object]) -> None:
    """Run this in a child; fail as it fails."""
    pid = os.fork()
    if not pid:
        signal.alarm(20)
        try:
            story()
        except BaseException as error:  # noqa: BLE001 - nothing may come back from here
            os.write(2, f"{error!r}\n".encode())
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    assert status == 0, "see the child's standard error"


def refused(action: Callable[[], object]) -> bool:
    """Whether the kernel says EPERM."""
    try:
        action()
    except PermissionError as error:
        return error.errno == errno.EPERM
    except OSError:
        return False
    return False


def memory() -> int:
    """A file that begins before the memory and goes on after it."""
    descriptor = os.memfd_create("guest")
    os.ftruncate(descriptor, BEGIN + SIZE + PAGE)
    return descriptor


def _fits(begin: int, size_bytes: int, place: int, length: int) -> bool:
    end = begin + size_bytes
    near_end = place > end - WRITE_BYTES_MAX
    return begin <= place and place + length <= end and length <= (PAGE if near_end else WRITE_BYTES_MAX)


def _writes(begin: int, size_bytes: int, seed: int) -> None:
    """Writes at all edges and at random: what may be is done, all else refused."""
    chance, end = random.Random(seed), begin + size_bytes
    descriptor = os.memfd_create("guest")  # sparse, and longer than any address of a process
    confine(descriptor, begin, size_bytes)
    places = [
        (begin, PAGE),
        (begin, WRITE_BYTES_MAX),
        (begin, WRITE_BYTES_MAX + 1),
        (begin - 1, PAGE),
        (begin - PAGE, PAGE),
        (begin - (1 << 33), PAGE),
        (end - PAGE, PAGE),
        (end - PAGE + 1, PAGE),
        (end - WRITE_BYTES_MAX, WRITE_BYTES_MAX),
        (end - WRITE_BYTES_MAX + 1, PAGE),
        (end - WRITE_BYTES_MAX + PAGE, WRITE_BYTES_MAX),
        (end, PAGE),
        (end + (1 << 33), PAGE),
        *(
            (begin + chance.randrange(size_bytes), chance.choice((1, PAGE, WRITE_BYTES_MAX)))
            for _ in range(40)
        ),
    ]
    for place, length in places:
        data = bytes(length)
        fits = _fits(begin, size_bytes, place, length)
        if not fits and begin <= place <= end - PAGE and length < PAGE:
            continue  # never too long, but not told apart from what could be
        wrong = f"{place - begin:#x} for {length} in {size_bytes:#x} at {begin:#x}"
        assert refused(lambda at=place, what=data: os.pwrite(descriptor, what, at)) is not fits, wrong


@pytest.mark.parametrize("seed", range(60))
def test_writes_inside_are_possible_and_no_others(seed: int) -> None:
    """Addresses as processes have them, often with a multiple of 4 GiB inside: filters compare halves of a number."""
    chance = random.Random(seed)
    begin = chance.randrange(0x7F00_0000, 0x7FFF_FFFF) << 12 << 4
    size_bytes = (chance.choice((1, 64, 2048, 5000, 40000)) << 20) + chance.choice((0, 2 * PAGE))
    in_child(lambda: _writes(begin, size_bytes, seed))


def _system_call(name: str, *arguments: object) -> int:
    """By way of libc, since Python has no name for it. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*arguments) < 0:
        raise OSError(ctypes.get_errno(), name)
    return 0


def _full_pipe() -> int:
    reading, writing = os.pipe()
    os.write(writing, b"x")
    return reading


#: What one might do with the descriptor, by the system call that it takes.
USES: dict[str, Callable[[int], object]] = {
    "write": lambda fd: os.write(fd, b"x"),
    "writev": lambda fd: os.writev(fd, [b"x"]),
    "pwritev": lambda fd: os.pwritev(fd, [b"x"], BEGIN),
    "pwritev2": lambda fd: os.pwritev(fd, [b"x"], BEGIN, os.RWF_DSYNC),
    "lseek": lambda fd: os.lseek(fd, 0, os.SEEK_SET),
    "ioctl": lambda fd: fcntl.ioctl(fd, 0x5401),
    "fcntl": lambda fd: fcntl.fcntl(fd, fcntl.F_DUPFD, 50),
    "dup": os.dup,
    "dup2": lambda fd: os.dup2(fd, 60, inheritable=True),
    "dup3": lambda fd: os.dup2(fd, 60, inheritable=False),
    "sendfile": lambda fd: os.sendfile(fd, os.open("/proc/self/exe", os.O_RDONLY), 0, 100),
    "splice": lambda fd: os.splice(_full_pipe(), fd, 1),
    "copy_file_range": lambda fd: os.copy_file_range(os.memfd_create("other"), fd, 1),
    "mmap": lambda fd: mmap.mmap(fd, PAGE),
    "upper half": lambda fd: _system_call("syscall", 1, ctypes.c_long(fd | 1 << 40), b"x", ctypes.c_long(1)),
    "socket": lambda _: socket.socket(),
    "socketpair": lambda _: socket.socketpair(),
    "pidfd_getfd": lambda fd: _system_call("syscall", 438, os.pidfd_open(os.getpid()), fd, 0),
    "io_setup": lambda _: _system_call("syscall", 206, 1, ctypes.byref(ctypes.c_ulong())),
    "io_uring_setup": lambda _: _system_call("syscall", 425, 1, None),
    "execve": lambda _: os.execv("/bin/true", ["true"]),
    "process_vm_writev": lambda _: _system_call("process_vm_writev", os.getpid(), None, 0, None, 0, 0),
    "ptrace": lambda _: _system_call("ptrace", 0, 0, None, None),
}


@pytest.mark.parametrize("name", USES)
def test_nothing_else_can_be_done_with_it(name: str) -> None:
    """And before it was confined, it could: else this would prove nothing."""

    def story() -> None:
        descriptor = memory()
        confine(descriptor, BEGIN, SIZE)
        assert refused(lambda: USES[name](descriptor)), name
        assert os.pread(descriptor, PAGE, 0) == bytes(PAGE)

    in_child(story)
    if name not in ("execve", "ptrace"):
        in_child(lambda: _is_not_refused(name))


def _is_not_refused(name: str) -> None:
    assert not refused(lambda: USES[name](memory()))


def test_it_holds_for_threads_that_run_already() -> None:
    def story() -> None:
        descriptor, go, found = memory(), threading.Event(), []

        def thread() -> None:
            go.wait()
            found.append(refused(lambda: os.write(descriptor, b"x")))

        other = threading.Thread(target=thread)
        other.start()
        confine(descriptor, BEGIN, SIZE)
        go.set()
        other.join()
        assert found == [True]

    in_child(story)


def test_other_descriptors_are_as_they_were() -> None:
    def story() -> None:
        left, right = socket.socketpair()
        other = memory()
        confine(memory(), BEGIN, SIZE)
        left.sendall(b"x" * 1000)
        assert right.recv(1000) == b"x" * 1000
        assert os.pwrite(other, b"x", 0) == os.write(other, b"x") == 1
        assert os.pwrite(other, bytes(2 * WRITE_BYTES_MAX), 0) == 2 * WRITE_BYTES_MAX
        os.close(os.dup(other))
        os.open("/dev/null", os.O_RDONLY)
        sys.stderr.write("")

    in_child(story)
