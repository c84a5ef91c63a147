"""A channel used like a socket by a thread: its timeouts hold whatever the peer does."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest

from relocd.tls.stream import TlsStream
from tests.tls.test_channel import channel, join


def test_a_timeout_is_not_prolonged_by_records_that_drip(tmp_path: Path) -> None:
    client, server = channel(tmp_path, server_side=False), channel(tmp_path, server_side=True)
    client.begin()
    join(client, server)
    client.send(b"x" * 10_000)
    record = client.outgoing()
    near, far = socket.socketpair()
    over = threading.Event()

    def drip() -> None:
        for byte in record:
            if over.wait(0.01):
                return
            far.send(bytes([byte]))

    dripping = threading.Thread(target=drip)
    dripping.start()
    with near, far:
        stream = TlsStream(near, server)
        stream.settimeout(0.3)
        try:
            with pytest.raises(TimeoutError):
                stream.recv(10)
        finally:
            over.set()
            dripping.join()
