"""The user that QEMU processes become, so that a guest that breaks out of one is not root."""

from __future__ import annotations

import os
import pwd
from typing import Final

from twisted.logger import Logger

from relocd.config.model import QEMU_USER
from relocd.errors import DriverError

_ROOT: Final = "root"
_log = Logger()


def user_for(wanted: str) -> str:
    """The user that QEMU is told to become, empty if it is to stay what it is. Blocks, as looking up users may.

    The default one need not exist, which is worth a warning. Raises DriverError if another one does not.
    """
    if wanted == _ROOT or os.geteuid() != 0:
        return ""
    try:
        found = pwd.getpwnam(wanted)
    except KeyError:
        if wanted != QEMU_USER:
            raise DriverError(
                f"there is no user '{wanted}' for QEMU to run as",
                hint=f"Make it (useradd --system {wanted}), or set qemu-user to another one.",
            ) from None
        _log.warn(
            "QEMU runs as root, since there is no user {user}: useradd --system {user}, "
            "or say (qemu-user root) if that is meant",
            user=wanted,
        )
        return ""
    return wanted if found.pw_uid else ""
