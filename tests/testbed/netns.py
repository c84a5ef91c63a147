"""Sockets in other network namespaces, opened from this process."""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
from collections.abc import Iterator
from pathlib import Path

NAMESPACES = Path("/run/netns")  # where ip-netns(8) keeps them
_CLONE_NEWNET = 0x40000000  # linux/sched.h
_libc = ctypes.CDLL(None, use_errno=True)


@contextlib.contextmanager
def in_netns(name: str) -> Iterator[None]:
    """Run the calling thread, and only it, inside the namespace ``name``. A socket stays where it was opened.

    Threads started inside the block stay in the namespace; commands run from it are inside too.
    """
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        there = os.open(NAMESPACES / name, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _setns(there)
        finally:
            os.close(there)
        try:
            yield
        finally:
            _setns(home)
    finally:
        os.close(home)


def socket_in(netns: str, kind: socket.SocketKind) -> socket.socket:
    """A new IPv4 socket in the namespace ``netns``."""
    with in_netns(netns):
        return socket.socket(socket.AF_INET, kind)


def _setns(descriptor: int) -> None:
    # os.setns came with Python 3.12.
    if _libc.setns(descriptor, _CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"setns: {os.strerror(number)}")
