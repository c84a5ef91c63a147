"""Channels that are kept open by the process that writes to them, and emptied when nobody wants them any more."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from attrs import frozen

from relocd.drivers.qemu.held import drain, taken
from tests.descriptors import closed_again, open_descriptors

#: More than the buffers of a socket take, so that who writes it waits for a reader.
MUCH = 4 << 20
PATIENCE_S = 20

#: Connects, is given the other ends, keeps them, writes until the word to stop, and tells how much.
WRITER = """
import socket, sys
path, count, much = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
own = [socket.socket(socket.AF_UNIX) for _ in range(count)]
for end in own:
    end.connect(path)
teacher = socket.socket(fileno=0)
_, held, _, _ = socket.recv_fds(teacher, 1, count)
teacher.send(b"held")
for end in own:
    end.sendall(bytes(much))
teacher.send(b"written")
teacher.recv(1)
"""


@frozen
class Writer:
    """A process with channels, of which we have nothing any more."""

    process: subprocess.Popen[bytes]
    path: Path
    word: socket.socket


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[Writer]:
    path, channels = tmp_path / "out", 3
    word, theirs = socket.socketpair()
    word.settimeout(PATIENCE_S)
    with word, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(channels)
        argv = [sys.executable, "-c", WRITER, str(path), str(channels), str(MUCH)]
        with theirs:
            process = subprocess.Popen(argv, stdin=theirs)
        ends = [listener.accept()[0] for _ in range(channels)]
        socket.send_fds(word, [b"."], [end.fileno() for end in ends])
        for end in ends:
            end.close()
        assert word.recv(16) == b"held"
        yield Writer(process, path, word)
    process.kill()
    process.wait()


def test_all_that_is_written_goes_somewhere(writer: Writer) -> None:
    drain(writer.process.pid, writer.path)
    assert writer.word.recv(16) == b"written"
    writer.word.send(b".")
    assert writer.process.wait(PATIENCE_S) == 0


def test_who_writes_to_other_sockets_waits_on(writer: Writer) -> None:
    drain(writer.process.pid, writer.path.with_name("elsewhere"))
    writer.word.settimeout(0.2)
    with pytest.raises(TimeoutError):
        writer.word.recv(16)
    assert writer.process.poll() is None


def test_nothing_is_left_of_it(writer: Writer) -> None:
    before = open_descriptors()
    threads = len(list(Path("/proc/self/task").iterdir()))
    drain(writer.process.pid, writer.path)
    assert writer.word.recv(16) == b"written"
    writer.word.send(b".")
    writer.process.wait(PATIENCE_S)
    while len(list(Path("/proc/self/task").iterdir())) > threads:
        os.sched_yield()
    assert closed_again(before)


def test_a_process_that_is_gone_has_nothing_to_take() -> None:
    process = subprocess.Popen(["true"])
    process.wait()
    assert taken(process.pid, 0) is None
    drain(process.pid, Path("/nowhere"))


def test_a_descriptor_that_is_not_open_cannot_be_taken() -> None:
    assert taken(os.getpid(), 1 << 19) is None
