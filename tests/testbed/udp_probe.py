"""Send numbered datagrams to an echo server at a steady pace and note when each left and came back.

Run by file name as a process of its own, since a thread would share its parent's interpreter lock; it imports the
standard library only, to start quickly. Its notes are a file that the parent maps or reads at any time:

    0   number of datagrams sent so far (64 bit, the machine's byte order)
    64  one record for each: when it was sent, when its echo came (64 bit, monotonic nanoseconds; 0: not yet)

It prints a line when the first echo arrives, and ends on SIGTERM.
"""

from __future__ import annotations

import argparse
import contextlib
import mmap
import os
import select
import socket
import struct
import time
from pathlib import Path

HEADER_BYTES = 64
RECORD = struct.Struct("=QQ")
CAPACITY = 1 << 22  # records: over an hour at one a millisecond; the file is sparse
FILE_BYTES = HEADER_BYTES + CAPACITY * RECORD.size
_U64 = struct.Struct("=Q")
_PAYLOAD = struct.Struct("!QQ")  # number, and a word of our own to tell echoes from strangers


def probe(sock: socket.socket, notes: mmap.mmap, interval_ns: int) -> None:
    """Send and receive until the notes are full."""
    token = int.from_bytes(os.urandom(8), "big")
    answered = False
    number = 0
    due_ns = time.monotonic_ns()
    while number < CAPACITY:
        now_ns = time.monotonic_ns()
        if now_ns >= due_ns:
            RECORD.pack_into(notes, HEADER_BYTES + number * RECORD.size, now_ns, 0)
            number += 1
            _U64.pack_into(notes, 0, number)
            # Refused or no route: the guest is not there just now. That is what is being measured.
            with contextlib.suppress(OSError):
                sock.send(_PAYLOAD.pack(number - 1, token))
            due_ns = max(due_ns + interval_ns, now_ns)
        readable, _, _ = select.select([sock], [], [], max(0, due_ns - time.monotonic_ns()) / 1e9)
        if readable and _receive(sock, notes, token) and not answered:
            answered = True
            print("answered", flush=True)


def _receive(sock: socket.socket, notes: mmap.mmap, token: int) -> bool:
    """Note every echo that is there; the first one counts."""
    received = False
    with contextlib.suppress(OSError):
        while True:
            data = sock.recv(64, socket.MSG_DONTWAIT)
            now_ns = time.monotonic_ns()
            number, mark = _PAYLOAD.unpack(data) if len(data) == _PAYLOAD.size else (0, -1)
            at = HEADER_BYTES + number * RECORD.size
            if mark == token and not RECORD.unpack_from(notes, at)[1]:
                _U64.pack_into(notes, at + 8, now_ns)
                received = True
    return received


def main() -> None:
    """Command line: address, port, interval in microseconds, file."""
    parser = argparse.ArgumentParser(description="UDP echo probe")
    parser.add_argument("address")
    parser.add_argument("port", type=int)
    parser.add_argument("interval_us", type=int)
    parser.add_argument("notes", type=Path)
    options = parser.parse_args()
    with contextlib.suppress(OSError):  # measuring comes before what is measured
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    with options.notes.open("r+b") as file, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect((options.address, options.port))
        probe(sock, mmap.mmap(file.fileno(), FILE_BYTES), options.interval_us * 1000)


if __name__ == "__main__":
    main()
