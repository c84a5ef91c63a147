"""python -m tests.daemon.flood PORT ADDRESS COUNT: connections without end, at least so many; prints how many."""

from __future__ import annotations

import contextlib
import socket
import struct
import sys
import threading

WORDS = (b"", b"x" * 1000, b"\x16" * 1000, b"help\n", b"(hello)\n", b"(" * 3000 + b"\n")
_RESET = struct.pack("ii", 1, 0)


def flood(port: int, address: str, least: int, ended: threading.Event) -> int:
    """Connect, say something, leave; some with a reset. How many connections there were."""
    done = 0
    while done < least or not ended.is_set():
        with contextlib.suppress(OSError), socket.socket() as sock:
            sock.settimeout(20)
            sock.bind((address, 0))
            sock.connect(("127.0.0.1", port))
            sock.send(WORDS[done % len(WORDS)])
            if done % 2:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        done += 1
    return done


if __name__ == "__main__":
    over = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), over.set()), daemon=True).start()
    print(flood(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), over))
