"""What xl starts in the place of ssh: gives its two pipes to the keeper that started xl, and stays until that ends.

Run as a file, with no package around it, so that it is quick: ``python -I -S transport.py SOCKET HOST xl ...``. It
holds both pipes open itself; once the keeper lets go of its connection, or dies, this ends, and xl finds them closed.
"""

from __future__ import annotations

import socket
import sys


def main(path: str) -> None:
    """Hand standard input and output over, and wait."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as keeper:
        keeper.connect(path)
        socket.send_fds(keeper, [b"pipes"], [0, 1])
        keeper.recv(1)


if __name__ == "__main__":
    main(sys.argv[1])
