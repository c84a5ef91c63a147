"""Sees the first frame of a guest, on whatever port of a bridge it is, with the kernel's time of it."""

from __future__ import annotations

import contextlib
import ctypes
import socket
import struct
from collections.abc import Sequence
from typing import Final

from relocd.net.packet import device_address
from relocd.segment.packetfilter import SEEN_BYTES, from_guests

_SO_ATTACH_FILTER: Final = 26  # asm-generic/socket.h
_SO_TIMESTAMPNS: Final = 35
_ETH_P_ALL: Final = 3
_PACKET_OUTGOING: Final = 4
_INSTRUCTION_BYTES: Final = 8
_AT_ONCE: Final = 64
_TIME = struct.Struct("=qq")

#: What the addresses of taps and of Xen's backends begin with, so that no bridge takes one for its own.
_GUEST_PORT: Final = 0xFE


def open_watch(macs: Sequence[bytes]) -> socket.socket:
    """A socket for what guests with these addresses send. Does not block; closing it does (see open_packets).

    It hears all devices: which one a guest is behind only its driver knows. Raises OSError.
    """
    kind = socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
    sock = socket.socket(socket.AF_PACKET, kind, socket.htons(_ETH_P_ALL))
    try:
        program = from_guests(macs)
        buffer = ctypes.create_string_buffer(program, len(program))
        fprog = struct.pack("@HP", len(program) // _INSTRUCTION_BYTES, ctypes.addressof(buffer))
        sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, fprog)
        sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        with contextlib.suppress(BlockingIOError):  # what came in before the filter was there
            while True:
                sock.recv(1)
    except BaseException:
        sock.close()
        raise
    return sock


def first_frame(sock: socket.socket) -> float | None:
    """When the first of the frames that are there came in by a guest's port, in seconds since 1970. Does not block.

    What comes in by other ports is what the guest sent on the host that it comes from.
    """
    for _ in range(_AT_ONCE):
        try:
            _, ancillary, _, address = sock.recvmsg(SEEN_BYTES, socket.CMSG_SPACE(_TIME.size))
        except OSError:
            return None
        device, _, kind, *_ = address
        if kind != _PACKET_OUTGOING and _is_guest_port(device):
            return _time_of(ancillary)
    return None


def _time_of(ancillary: list[tuple[int, int, bytes]]) -> float | None:
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, _SO_TIMESTAMPNS) and len(data) == _TIME.size:
            seconds, nanoseconds = _TIME.unpack(data)
            return float(seconds) + float(nanoseconds) / 1e9
    return None


def _is_guest_port(device: str) -> bool:
    with contextlib.suppress(OSError):
        return device_address(device)[0] == _GUEST_PORT
    return False
