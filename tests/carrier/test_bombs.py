"""What little a peer sends must not become much in a carrier's memory."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from pathlib import Path

import psutil

from relocd.carrier import control
from relocd.pages import frames
from relocd.pages.frames import Kind
from relocd.pages.limits import BATCH_BYTES_MAX, WINDOW
from relocd.pages.squeeze import Compressor
from tests.carrier.carriers import Carrier, stream_pair, tcp_pair

#: A carrier that does nothing has some 40 MiB, numpy included.
PEAK_KIB_MAX = 220 << 10
_SPANS = 8000


def bomb() -> bytes:
    """The largest batch with the most items, compressed: 2 MiB that travel as a few hundred bytes."""
    tail = struct.pack("!BBBBI", 1, 0, 0, 0, 1) * (_SPANS - 1)
    contents = BATCH_BYTES_MAX - len(tail) - 16
    tail += struct.pack("!BBBBI", 1, 0, 0, 0, contents - (_SPANS - 1)) + struct.pack(
        "!II", _SPANS, len(tail) + 8
    )
    return Compressor().compress(bytes(contents) + tail, 19)


def peak_kib(pid: int) -> int:
    (line,) = [row for row in Path(f"/proc/{pid}/status").read_text().splitlines() if row.startswith("VmHWM")]
    return int(line.split()[1])


def wait_idle(pid: int) -> None:
    """Return when the process has nothing to do but wait."""
    process, pause = psutil.Process(pid), threading.Event()
    before = -1.0
    while (now := sum(process.cpu_times()[:2])) > before:
        before = now
        pause.wait(0.3)


def test_frames_that_wait_for_one_that_never_comes_take_a_window_and_no_more() -> None:
    packed = bomb()
    assert len(packed) < 2000
    with Carrier() as target:
        lane, far = tcp_pair()
        back, stream = stream_pair()
        target.tell(control.Receive(1, ()), far)
        target.tell(control.Stream(), stream)
        with lane, back:
            lane.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                for sequence in range(1, 400):
                    lane.send(
                        frames.pack(Kind.BATCH, sequence, packed, decoded_bytes=BATCH_BYTES_MAX) + packed
                    )
                    sent = sequence
            assert sent >= 4 * WINDOW
            wait_idle(target.process.pid)
            peak = peak_kib(target.process.pid)
            assert peak < PEAK_KIB_MAX, f"{peak >> 10} MiB"
            lane.shutdown(socket.SHUT_RDWR)
