"""What makes the carrier harmless: it lets go of everything that it does not need before it hears of a peer.

PR_SET_PDEATHSIG is not used on purpose: it fires when the *thread* that started the carrier ends, and it is
lost in a change of credentials. The end of the control socket says the same reliably.
"""

from __future__ import annotations

import ctypes
import gc
import os
import resource
import threading
from typing import Final

from relocd.carrier.control import DESCRIPTORS_MAX

_PR_SET_DUMPABLE: Final = 4
_PR_SET_NO_NEW_PRIVS: Final = 38
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8

_THREAD_STACK_BYTES: Final = 512 << 10
_HEAP_KEPT_BYTES: Final = 8 << 20
_OWN_DESCRIPTORS: Final = 16


def drop_privileges(control: int, uid: int, gid: int) -> None:
    """Keep the control descriptor and the standard ones; become ``uid`` and ``gid`` if root. Cannot be
    undone."""
    os.closerange(3, control)
    os.closerange(max(control + 1, 3), os.sysconf("SC_OPEN_MAX"))
    os.chdir("/")
    os.umask(0o077)
    descriptors = control + 1 + DESCRIPTORS_MAX + _OWN_DESCRIPTORS
    resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    _prctl(_PR_SET_DUMPABLE, 0)


def tune() -> None:
    """Settings for few threads that pass on buffers of half a MiB: one heap that is kept, less to collect."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(_M_ARENA_MAX, 1)
        libc.mallopt(_M_TRIM_THRESHOLD, _HEAP_KEPT_BYTES)
        libc.mallopt(_M_MMAP_THRESHOLD, _HEAP_KEPT_BYTES)
    threading.stack_size(_THREAD_STACK_BYTES)
    gc.freeze()


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0):
        number = ctypes.get_errno()
        raise OSError(number, f"prctl({option}): {os.strerror(number)}")
