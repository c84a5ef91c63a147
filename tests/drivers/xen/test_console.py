"""A domain's console: what it says goes to the log and to whoever listens; what is typed reaches it."""

from __future__ import annotations

import os
import socket
import tty
from collections.abc import Iterator
from pathlib import Path

import pytest

from relocd.drivers.xen.console import Console
from tests.reactor import call

PATIENCE_S = 20.0


@pytest.fixture
def guest() -> Iterator[tuple[int, str]]:
    """xenconsoled's end of a terminal, and the name of the other one."""
    ours, theirs = os.openpty()
    tty.setraw(theirs)
    yield ours, os.ttyname(theirs)
    for descriptor in (ours, theirs):
        os.close(descriptor)


def connect(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(PATIENCE_S)
    sock.connect(str(path))
    return sock


def receive(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        data += sock.recv(size - len(data))
    return data


def test_all_that_listen_hear_it_and_it_hears_them(guest: tuple[int, str], tmp_path: Path) -> None:
    ours, name = guest
    path, log = tmp_path / "console.sock", tmp_path / "console.log"
    console = call(Console, name, path, log)
    with connect(path) as first, connect(path) as second:
        first.sendall(b"one\n")
        assert os.read(ours, 100) == b"one\n"
        second.sendall(b"two\n")
        assert os.read(ours, 100) == b"two\n"
        os.write(ours, b"login: ")
        assert receive(first, 7) == receive(second, 7) == b"login: "
        first.close()
        second.sendall(b"x")
        assert os.read(ours, 100) == b"x"
        os.write(ours, b"still here")
        assert receive(second, 10) == b"still here"
        call(console.close)
        assert second.recv(1) == b""
    call(console.close)
    assert log.read_bytes() == b"login: still here"
    assert not path.exists()


def test_the_end_of_the_domain_is_the_end_of_its_console(tmp_path: Path) -> None:
    ours, theirs = os.openpty()
    path = tmp_path / "console.sock"
    console = call(Console, os.ttyname(theirs), path, tmp_path / "log")
    os.close(theirs)
    with connect(path) as client:
        client.sendall(b"x")
        assert os.read(ours, 1) == b"x"
        os.close(ours)
        assert client.recv(1) == b""
    call(console.close)
