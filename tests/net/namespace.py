"""A network namespace for one thread: what a test does to the network ends with it."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator

from pyroute2 import IPRoute

_CLONE_NEWNET = 0x40000000  # linux/sched.h
_libc = ctypes.CDLL(None, use_errno=True)


@contextlib.contextmanager
def private_network() -> Iterator[None]:
    """Put the calling thread into a new network namespace, and back at the end.

    Threads and processes started inside stay there; the namespace lives as long as one of them does.
    """
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _check(_libc.unshare(_CLONE_NEWNET))
        try:
            yield
        finally:
            _check(_libc.setns(home, _CLONE_NEWNET))
    finally:
        os.close(home)


def add_bridge(name: str) -> None:
    """A bridge that is up. Blocks, and may not be called inside an event loop."""
    with IPRoute() as route:
        route.link("add", ifname=name, kind="bridge", address="02:00:00:00:00:01")
        route.link("set", ifname=name, state="up")


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
