"""Files that are whole or absent, and sockets."""

from __future__ import annotations

import socket
import stat
from pathlib import Path

import pytest

from relocd.drivers.qemu.sockets import MAX_PATH_BYTES, STREAM_BUFFER_BYTES, listening, stream_pair
from relocd.errors import DriverError
from relocd.host.files import write_whole


def test_a_file_is_replaced_and_for_root_only(tmp_path: Path) -> None:
    path = tmp_path / "record"
    for content in (b"first, and longer", b"second"):
        write_whole(path, content)
        assert path.read_bytes() == content
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_a_stale_socket_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "monitor.sock"
    for _ in range(2):
        with listening(path), socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_whoever_inherits_a_listener_is_not_held_by_it(tmp_path: Path) -> None:
    with listening(tmp_path / "monitor.sock") as listener, pytest.raises(BlockingIOError):
        listener.accept()


def test_a_path_that_is_too_long_is_said_to_be(tmp_path: Path) -> None:
    path = tmp_path / ("x" * MAX_PATH_BYTES)
    with pytest.raises(DriverError, match="longer than 107 bytes") as caught, listening(path):
        pass
    assert "--run-dir" in caught.value.hint


def test_streams_have_small_buffers_and_block() -> None:
    for end in stream_pair():
        assert end.getblocking()
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            # The kernel doubles what is asked for, to have room for its own records (socket(7)).
            assert end.getsockopt(socket.SOL_SOCKET, option) <= 2 * STREAM_BUFFER_BYTES
        end.close()
