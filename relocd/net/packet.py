"""Raw frames on this host's network devices (packet(7)). What blocks says so."""

from __future__ import annotations

import errno
import fcntl
import socket
import struct
from typing import Final

#: linux/sockios.h
_SIOCGIFFLAGS: Final = 0x8913
_SIOCGIFHWADDR: Final = 0x8927
_IFF_UP: Final = 1
_IFREQ = struct.Struct("16s16s")

#: More than any frame here may have.
FRAME_BYTES: Final = 2048


def open_packets(device: str, ethertype: int) -> socket.socket:
    """A socket that sends on a device and receives frames of one type that came in there. Does not block.

    Raises OSError. Closing it waits for a grace period of the kernel, tens of milliseconds: do that in a thread.
    """
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, 0)
    try:
        sock.bind((device, ethertype))
    except BaseException:
        sock.close()
        raise
    return sock


def device_address(device: str) -> bytes:
    """The six bytes of a device's address. Raises OSError if there is no such device."""
    return bytes(_ask(device, _SIOCGIFHWADDR)[2:8])


def device_is_up(device: str) -> bool:
    """Has an administrator brought it up? Raises OSError if there is no such device."""
    return bool(struct.unpack_from("=H", _ask(device, _SIOCGIFFLAGS))[0] & _IFF_UP)


def _ask(device: str, request: int) -> bytes:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        answer = fcntl.ioctl(sock, request, _IFREQ.pack(device.encode(), b""))
    return bytes(_IFREQ.unpack(answer)[1])


def packet_trouble(error: OSError) -> str:
    """Why raw frames are not possible, in words."""
    if error.errno in (errno.EPERM, errno.EACCES):
        return "relocd may not open packet sockets (it needs CAP_NET_RAW)"
    if error.errno in (errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT):
        return "packet sockets are not available (the kernel module af_packet, or RestrictAddressFamilies=)"
    return f"packet sockets fail: {error.strerror or error}"
