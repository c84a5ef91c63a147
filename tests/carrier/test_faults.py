"""What must end a relocation ends it, on both sides, at once and with a reason."""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import struct
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import xxhash

from relocd.carrier import control
from relocd.carrier.control import CarrierFailed, FileSpec
from relocd.pages import frames
from relocd.pages.frames import End, FileEnd, Kind
from relocd.pages.limits import BATCH_BYTES_MAX
from relocd.pages.squeeze import Compressor
from tests.carrier.carriers import (
    Carrier,
    Meddler,
    memory_file,
    pair,
    read_in_background,
    stream_pair,
    tcp_pair,
    write_and_close,
)
from tests.pages.streams import bulk


def flip(at: int) -> Callable[[int, bytes], bytes | None]:
    """Change one bit of one byte."""

    def meddle(offset: int, data: bytes) -> bytes:
        if not offset <= at < offset + len(data):
            return data
        changed = bytearray(data)
        changed[at - offset] ^= 0x10
        return bytes(changed)

    return meddle


def cut(at: int) -> Callable[[int, bytes], bytes | None]:
    return lambda offset, data: data if offset + len(data) <= at else None


@pytest.mark.parametrize(
    ("at", "compression"), [(2, "none"), (18, "none"), (100_000, "none"), (1_000, "zstd")]
)
def test_a_flipped_bit_is_caught(at: int, compression: str) -> None:
    """In the magic, a size, raw content, compressed content; ``test_damage`` tries all the others."""
    stream = os.urandom(300_000) if compression == "none" else bulk(4000)
    with pair() as both:
        both.connect(compression=compression, between=Meddler(flip(at)))
        both.expect_files()
        both.start()
        read_in_background(both.back)
        writer = write_and_close(both.out, [stream])
        failed = both.target.expect(CarrierFailed)
        assert failed.code == "stream"
        assert both.target.exit_code() == 1
        writer.join()


@pytest.mark.parametrize("at", [0, 10, 200_000])
def test_a_cut_lane_ends_both(at: int) -> None:
    with pair() as both:
        both.connect(2, compression="none", between=Meddler(cut(at)))
        both.expect_files()
        both.start()
        writer = write_and_close(both.out, [bulk(2000)])
        for carrier in (both.source, both.target):
            assert carrier.expect(CarrierFailed).code in ("unreachable", "stream")
            assert carrier.exit_code() == 1
        writer.join()


def test_one_lane_of_three_that_dies_ends_both() -> None:
    def between(number: int) -> tuple[socket.socket, socket.socket]:
        return Meddler(cut(100_000 if number == 1 else 1 << 40))(number)

    with pair() as both:
        both.connect(3, compression="none", between=between)
        both.expect_files()
        both.start()
        read_in_background(both.back)
        writer = write_and_close(both.out, [bulk(4000)])
        for carrier in (both.source, both.target):
            assert carrier.expect(CarrierFailed).code in ("unreachable", "stream")
            assert carrier.exit_code() == 1
        writer.join()


def test_the_hypervisors_notice_a_failure() -> None:
    """Both ends of the stream close, so QEMU fails the migration and goes on with its guest."""
    with pair() as both:
        both.connect()
        both.expect_files()
        both.start()
        both.out.sendall(b"something")
        assert both.back.recv(100) == b"something"
        both.target.control.close()
        assert both.target.exit_code() == 0
        assert both.back.recv(100) == b""
        assert both.source.expect(CarrierFailed).text == "the peer gave up: its daemon ended the relocation"
        assert both.out.recv(100) == b""


@pytest.mark.parametrize("side", ["source", "target"])
def test_a_daemon_that_dies_ends_its_carrier_and_the_peers(side: str) -> None:
    with pair() as both:
        both.connect(2)
        both.expect_files()
        both.start()
        dying, other = (both.source, both.target) if side == "source" else (both.target, both.source)
        dying.control.close()
        dying.exit_code()
        failed = other.expect(CarrierFailed)
        assert failed.code in ("stream", "unreachable")
        assert other.exit_code() == 1


def test_a_carrier_that_is_killed_ends_the_peers() -> None:
    with pair() as both:
        both.connect(3)
        both.expect_files()
        both.start()
        both.source.process.kill()
        assert both.target.expect(CarrierFailed).code == "unreachable"


def test_a_hypervisor_that_dies_while_it_receives_ends_both() -> None:
    with pair() as both:
        both.connect()
        both.expect_files()
        both.start()
        write_and_close(both.out, [bulk(4000)])
        assert both.back.recv(1000)
        both.back.close()
        assert both.target.expect(CarrierFailed).code == "hypervisor"
        assert both.source.expect(CarrierFailed).code in ("stream", "unreachable")


def test_a_stream_beyond_its_limit_is_refused() -> None:
    with pair() as both:
        both.connect(stream_bytes_max=100_000)
        both.expect_files()
        both.start()
        write_and_close(both.out, [os.urandom(100_001)])
        failed = both.target.expect(CarrierFailed)
        assert failed.code == "stream"
        assert failed.text.startswith("the stream is longer than 100000 bytes, the most that the domain")


def frame(kind: Kind, payload: bytes, sequence: int = 0) -> bytes:
    return frames.pack(kind, sequence, payload) + payload


class Peer:
    """A target carrier, and the source's end of its lane."""

    def __init__(
        self, target: Carrier, files: tuple[FileSpec, ...] = (), sinks: tuple[int, ...] = ()
    ) -> None:
        self._target = target
        self.lane, far = tcp_pair()
        self._back, stream = stream_pair()
        target.tell(control.Receive(1, files), far, *sinks)
        target.tell(control.Stream(), stream)

    def reason(self) -> str:
        """Why the target gave up; the peer is told the same."""
        while not isinstance(event := self._target.event(), CarrierFailed):
            assert event is not None
        assert event.code == "stream"
        data = b""
        with contextlib.suppress(ConnectionResetError):  # it leaves with bytes unread
            while piece := self.lane.recv(1000):
                data += piece
        header = frames.unpack(data[: frames.HEADER_BYTES])
        assert header.kind is Kind.ABORT
        assert frames.abort_reason(data[frames.HEADER_BYTES :]) == event.text
        return event.text


BOMB = Compressor().compress(bytes(64 << 20), 1)
BATCH = b"x" + struct.pack("!BBBBI", 1, 0, 0, 0, 1) + struct.pack("!II", 1, 8)
_FIELDS = struct.pack("!4sBBBBQIIQ", frames.MAGIC, 1, 1, 0, 0, 0, BATCH_BYTES_MAX + 1, BATCH_BYTES_MAX + 1, 0)
TOO_LONG = _FIELDS + xxhash.xxh3_64_digest(_FIELDS)
NO_DIGEST = bytes(16)

HOSTILE = {
    "garbage": (b"\x17" * 64, "not a frame"),
    "zeros": (bytes(64), "not a frame"),
    "an oversized announcement": (TOO_LONG, "announces 2097153 bytes"),
    "a frame cut short": (frame(Kind.BATCH, BATCH)[:-1], "ended inside a frame"),
    "a header cut short": (frame(Kind.BATCH, BATCH)[:9], "ended inside a frame"),
    "a batch that is none": (frame(Kind.BATCH, b"12345678"), "no items"),
    "a batch that is all descriptors": (
        frame(
            Kind.BATCH,
            b"x" * 9000 + struct.pack("!BBBBI", 1, 0, 0, 0, 1) * 9000 + struct.pack("!II", 9000, 72000),
        ),
        "72000 bytes of descriptors",
    ),
    "a sequence twice": (frame(Kind.BATCH, BATCH) * 2, "came twice"),
    "a wrong digest": (
        frame(Kind.BATCH, BATCH) + frame(Kind.END, End(1, 1, NO_DIGEST).to_bytes(), 1),
        "not what was sent",
    ),
    "wrong totals": (frame(Kind.END, End(1, 0, NO_DIGEST).to_bytes()), "not what was sent"),
    "more after the end": (
        frame(Kind.END, End(0, 0, NO_DIGEST).to_bytes()) + frame(Kind.BATCH, BATCH, 1),
        "more after the end",
    ),
    "a return path in the wrong direction": (frame(Kind.RETURN, b"x"), "wrong direction"),
    "a channel that was not agreed on": (frame(Kind.CHANNEL, b"x"), "carries a CHANNEL frame"),
    "a file nobody asked for": (frame(Kind.FILE, b"x"), "not agreed on"),
    "an end of a file nobody asked for": (frame(Kind.FILE_END, FileEnd(0, 0).to_bytes()), "mixed up"),
    "a bomb": (
        frames.pack(Kind.BATCH, 0, BOMB, decoded_bytes=100_000) + BOMB,
        "67108864 bytes instead of 100000",
    ),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_peer_gets_nowhere(case: str) -> None:
    data, reason = HOSTILE[case]
    with Carrier() as target:
        peer = Peer(target)
        peer.lane.sendall(data)
        if case.endswith("cut short"):
            peer.lane.shutdown(socket.SHUT_WR)
        assert reason in peer.reason()
        assert target.exit_code() == 1


def spec(data: bytes) -> FileSpec:
    return FileSpec(len(data), hashlib.sha256(data).hexdigest())


BAD_FILES = {
    "too long": (frame(Kind.FILE, b"kernels"), "longer than the 6 bytes"),
    "too short": (
        frame(Kind.FILE, b"kern") + frame(Kind.FILE_END, FileEnd(0, 4).to_bytes(), 1),
        "not the one",
    ),
    "another content": (
        frame(Kind.FILE, b"kernal") + frame(Kind.FILE_END, FileEnd(0, 6).to_bytes(), 1),
        "not the one",
    ),
    "another size at the end": (
        frame(Kind.FILE, b"kernel") + frame(Kind.FILE_END, FileEnd(0, 5).to_bytes(), 1),
        "mixed up",
    ),
    "the stream before it is complete": (frame(Kind.BATCH, BATCH), "before all boot files"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_wrong_boot_file_is_refused(case: str, tmp_path: Path) -> None:
    data, reason = BAD_FILES[case]
    with Carrier() as target:
        sink = os.open(tmp_path / "kernel", os.O_WRONLY | os.O_CREAT, 0o600)
        peer = Peer(target, (spec(b"kernel"),), (sink,))
        peer.lane.sendall(data)
        assert reason in peer.reason()


def test_a_boot_file_that_shrank_is_noticed_by_the_source() -> None:
    with Carrier() as source:
        near, far = tcp_pair()
        source.tell(control.Send(1, files=(FileSpec(100, "0" * 64),)), near, memory_file(b"short"))
        assert "shorter than the 100 bytes" in source.expect(CarrierFailed).text
        far.close()


@pytest.mark.parametrize("kind", [Kind.BATCH, Kind.FILE, Kind.END, Kind.CHANNEL])
def test_a_target_cannot_send_to_the_source(kind: Kind) -> None:
    with Carrier() as source:
        near, far = tcp_pair()
        source.tell(control.Send(1), near)
        payload = b"x" if kind is not Kind.END else bytes(32)
        source.expect(control.CarrierFilesDone)
        far.sendall(frames.pack(kind, 0, payload) + payload)
        assert "wrong direction" in source.expect(CarrierFailed).text


def test_a_gap_in_the_return_path_is_noticed() -> None:
    with Carrier() as source:
        near, far = tcp_pair()
        ours, theirs = stream_pair()
        source.tell(control.Send(1), near)
        source.tell(control.Stream(), theirs)
        source.expect(control.CarrierFilesDone)
        far.sendall(frames.pack(Kind.RETURN, 1, b"x") + b"x")
        assert "is missing" in source.expect(CarrierFailed).text
        ours.close()


MISUSE: dict[str, tuple[list[control.Command], str]] = {
    "stream first": ([control.Stream()], "told to send or to receive first"),
    "digest first": ([control.AskDigest()], "told to send or to receive first"),
    "limit first": ([control.Limit(1)], "only a carrier that sends"),
    "twice": ([control.Receive(1), control.Send(1)], "one relocation, not two"),
    "two streams": ([control.Receive(1), control.Stream(), control.Stream()], "one hypervisor stream"),
    "limit on the target": ([control.Receive(1), control.Limit(1)], "only a carrier that sends"),
}


@pytest.mark.parametrize("case", MISUSE)
def test_a_daemon_that_errs_is_told(case: str) -> None:
    commands, reason = MISUSE[case]
    kept: list[socket.socket] = []
    with Carrier() as carrier:
        for command in commands:
            ends = [tcp_pair() for _ in range(command.descriptors)]
            kept += [far for _, far in ends]
            carrier.tell(command, *[near for near, _ in ends])
        while not isinstance(event := carrier.event(), CarrierFailed):
            assert event is not None
        assert event.code == "protocol"
        assert reason in event.text
    for sock in kept:
        sock.close()


@pytest.mark.parametrize("count", [0, 2])
def test_a_wrong_number_of_descriptors_is_refused(count: int) -> None:
    with Carrier() as carrier:
        ends = [tcp_pair() for _ in range(count)]
        carrier.tell(control.Receive(1), *[near for near, _ in ends])
        assert f"brings {count} descriptors, not 1" in carrier.expect(CarrierFailed).text
        for _, far in ends:
            far.close()


def test_garbage_on_the_control_socket_is_refused() -> None:
    with Carrier() as carrier:
        carrier.control.send(b"hello")
        assert "is not JSON" in carrier.expect(CarrierFailed).text
    with Carrier() as carrier:
        carrier.control.send(b" " * 70_000)
        assert "too long" in carrier.expect(CarrierFailed).text


def test_a_window_of_frames_out_of_order_is_taken_and_no_more() -> None:
    """Frame 0 comes last; the sixteenth is not even read before it."""
    with Carrier() as target:
        near, far = zip(*[tcp_pair() for _ in range(2)], strict=True)
        back, stream = stream_pair()
        target.tell(control.Receive(2), *far)
        target.tell(control.Stream(), stream)
        for number in range(1, 17):
            near[1].sendall(frames.pack(Kind.BATCH, number, BATCH) + BATCH)
        got: list[bytes] = []
        reader = threading.Thread(target=lambda: got.append(back.recv(1)), daemon=True)
        reader.start()
        reader.join(0.2)
        assert not got
        near[0].sendall(frames.pack(Kind.BATCH, 0, BATCH) + BATCH)
        reader.join()
        total = len(got[0])
        while total < 17:
            total += len(back.recv(100))
        assert target.expect(control.CarrierFilesDone)
        assert target.digest().batches == 17
