"""Filters of system calls (seccomp(2), by way of libseccomp): for every thread, and for good.

The kernel takes them from a process that has given up gaining privileges (no_new_privs), or is root.

The kernel asks all filters that a process has loaded, and the strictest answer counts. libseccomp 2.5.4 compares
wrongly where several rules of one filter compare the same argument of a call and it is longer than 32 bits. So a
filter has one rule at most for a call that it compares an argument of; more rules are more filters.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Mapping, Sequence

from relocd.errors import DriverError

__all__ = ["HINT", "allow_only", "refuse", "require", "seccomp"]

try:
    import pyseccomp as seccomp
except RuntimeError:  # no libseccomp
    seccomp = None

HINT = "Install libseccomp (libseccomp2 in Debian), on a kernel with CONFIG_SECCOMP_FILTER."


def require() -> None:
    """Raise DriverError if this host has no such filters."""
    if seccomp is None:
        raise DriverError("what a peer sends cannot be read safely: libseccomp is missing", hint=HINT)


def refuse(calls: Mapping[str, Sequence[seccomp.Arg]]) -> None:
    """These calls, as far as all given arguments are met, fail with EPERM. Raises OSError."""
    filter_ = _filter(seccomp.ALLOW)
    for call, arguments in calls.items():
        filter_.add_rule(seccomp.ERRNO(errno.EPERM), call, *arguments)
    filter_.load()


def allow_only(calls: Iterable[str], *, unknown: Iterable[str], deadly: Iterable[str]) -> None:
    """All other calls fail with EPERM. Raises OSError.

    ``unknown`` ones fail as if the kernel were too old for them, so that libraries fall back to others; ``deadly``
    ones end the process (SIGSYS).
    """
    filter_ = _filter(seccomp.ERRNO(errno.EPERM))
    for action, names in (
        (seccomp.ALLOW, calls),
        (seccomp.ERRNO(errno.ENOSYS), unknown),
        (seccomp.KILL_PROCESS, deadly),
    ):
        for name in names:
            filter_.add_rule(action, name)
    filter_.load()


def _filter(otherwise: int) -> seccomp.SyscallFilter:
    filter_ = seccomp.SyscallFilter(otherwise)
    filter_.set_attr(seccomp.Attr.CTL_TSYNC, 1)
    filter_.set_attr(seccomp.Attr.CTL_NNP, 0)  # set already, by a call that a sealed process has no more
    return filter_
