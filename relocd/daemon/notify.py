"""Tell the service manager how we are: one datagram to $NOTIFY_SOCKET (sd_notify(3))."""

from __future__ import annotations

import os
import socket


def notify(*assignments: str) -> None:
    """Send ``NAME=value`` lines, such as ``READY=1``. Nothing happens outside a service manager."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        try:
            sock.sendto("\n".join(assignments).encode(), address.replace("@", "\0", 1))
        except OSError:
            return  # the manager is gone; the daemon's work does not depend on it
