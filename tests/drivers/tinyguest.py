"""A guest of a hundred bytes, in the place of a kernel: it answers on the serial port and ends as it is told.

It says ``R`` once it runs. Each byte it then hears is answered with how many it has heard so far (one byte), which
shows after a relocation that it is the same guest. Three bytes are orders: ``p`` power off, ``r`` reset, ``c`` crash.
"""

from __future__ import annotations

import socket
from pathlib import Path

READY = b"R"
POWER_OFF, RESET, CRASH = b"p", b"r", b"c"

_SETUP_SECTORS = 4
_CODE_OFFSET = 0x280

_START = bytes.fromhex(
    "fb"  # sti, so that the firmware sees Ctrl-Alt-Del
    "31db"  # xor bx, bx
    "baf803 b052 ee"  # mov dx, COM1; mov al, 'R'; out dx, al
)
_LOOP = bytes.fromhex(
    "bafd03 ec a801 74f8"  # wait until the line status says that a byte is there
    "baf803 ec"  # in al, COM1
    "3c70 740e"  # 'p': to _POWER_OFF
    "3c72 7413"  # 'r': to _RESET
    "3c63 7417"  # 'c': to _CRASH
    "43 88d8 ee"  # inc bx; mov al, bl; out dx, al
    "ebe2"  # back to _LOOP
)
_POWER_OFF = bytes.fromhex("ba0406 b80020 ef ebfe")  # SLP_EN into PM1_CNT (ACPI), then wait
_RESET = bytes.fromhex("baf90c b006 ee ebfe")  # RST_CPU and SYS_RST into the chipset's reset control
_CRASH = bytes.fromhex("ba0505 b001 ee ebfe")  # what pvpanic's port takes for a panic


def write_kernel(directory: Path) -> str:
    """Write the guest as a Linux kernel (boot protocol 2.02: real-mode code at 0x200) and return its path."""
    image = bytearray((1 + _SETUP_SECTORS) * 512 + 4096)
    image[0x1F1] = _SETUP_SECTORS
    image[0x1FE:0x200] = b"\x55\xaa"
    image[0x200:0x202] = bytes([0xEB, _CODE_OFFSET - 0x202])
    image[0x202:0x208] = b"HdrS\x02\x02"
    image[0x211] = 1  # loaded high
    code = _START + _LOOP + _POWER_OFF + _RESET + _CRASH
    image[_CODE_OFFSET : _CODE_OFFSET + len(code)] = code
    path = directory / "tinyguest"
    path.write_bytes(image)
    return str(path)


class Console:
    """A connection to the guest's serial port."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(20)
        self._socket.connect(str(path))

    def wait_ready(self) -> None:
        """Wait until the guest says that it runs."""
        while self._socket.recv(1) != READY:
            pass

    def ask(self) -> int:
        """How many bytes the guest has heard, this one included."""
        self._socket.sendall(b"?")
        return self._socket.recv(1)[0]

    def order(self, order: bytes) -> None:
        """Have the guest end."""
        self._socket.sendall(order)

    def close(self) -> None:
        self._socket.close()
