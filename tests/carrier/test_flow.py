"""Two carriers joined by real lanes: what goes in comes out."""

from __future__ import annotations

import itertools
import os
import random
import select
import threading
from pathlib import Path

import numpy as np
import pytest

from relocd.carrier import control
from relocd.pages.choice import LEVELS
from relocd.pages.frames import Header, Kind
from relocd.pages.limits import WINDOW
from tests.carrier.carriers import (
    PATIENCE_S,
    FrameRelay,
    known_to_both,
    pair,
    read_in_background,
    read_to_end,
    write_and_close,
)
from tests.pages.streams import StreamBuilder, bulk

PAGE = 4096


def mixed(pages: int, seed: int = 1) -> bytes:
    """A stream of pages that shrink, pages that do not, zero pages and device state."""
    random_source = np.random.default_rng(seed)
    content = np.zeros((pages, PAGE), np.uint8)
    content[:, :2000] = random_source.integers(0, 256, (pages, 2000), dtype=np.uint8)
    builder = StreamBuilder()
    builder.bytes.clear()
    builder.part(last=True)
    for number in range(200):
        builder.zero("pc.ram", number)
    builder.end_of_payload()
    return bulk(pages, content=content) + bytes(builder.bytes) + random.Random(seed).randbytes(50_000)


@pytest.mark.parametrize(
    ("lanes", "compression"), [(1, "none"), (1, "zstd"), (2, "auto"), (3, "none"), (3, "zstd")]
)
def test_what_goes_in_comes_out(lanes: int, compression: str) -> None:
    stream = mixed(2000)
    with pair() as both:
        both.connect(lanes, compression=compression)
        both.expect_files()
        both.start()
        write_and_close(both.out, [stream])
        assert read_to_end(both.back) == stream
        sent, received = both.expect_end()
        assert sent.totals == received.totals == both.source.digest() == both.target.digest()
        assert sent.totals.stream_bytes == len(stream)
        assert known_to_both(sent.counters) == known_to_both(received.counters)
        assert sent.counters.pages == 2001


def test_pieces_of_any_size_come_out_as_they_went_in() -> None:
    stream = mixed(300)
    chance = random.Random(7)
    cuts = sorted(chance.sample(range(len(stream)), 400))
    pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    with pair() as both:
        both.connect(2)
        both.expect_files()
        both.start()
        write_and_close(both.out, pieces)
        assert read_to_end(both.back) == stream
        both.expect_end()


def test_the_last_byte_does_not_wait_for_more() -> None:
    with pair() as both:
        both.connect()
        both.start()
        for piece in (b"QEVM\0\0\0\3", b"\x08\0\x01\0\0", b"opaque", b"x"):
            both.out.sendall(piece)
            assert both.back.recv(100) == piece


def test_a_hypervisor_that_pauses_inside_of_a_record_has_not_ended() -> None:
    """Longer than anybody waits for the rest of a batch: what is there is not a whole record, so nothing can go."""
    stream = mixed(3)
    cuts = (5000, 5100, 5200)  # inside of the second page
    with pair() as both:
        both.connect()
        both.expect_files()
        both.start()
        out = b""
        for before, cut in itertools.pairwise((0, *cuts)):
            both.out.sendall(stream[before:cut])
            while select.select([both.back], [], [], 0.1)[0]:
                out += both.back.recv(1 << 20)
        write_and_close(both.out, [stream[cuts[-1] :]])
        assert out + read_to_end(both.back) == stream
        both.expect_end()


def test_the_return_path_is_relayed_with_its_end() -> None:
    with pair() as both:
        both.connect(3)
        both.start()
        both.back.sendall(b"\0\2\0\4\0\0\0\1")
        assert both.out.recv(100) == b"\0\2\0\4\0\0\0\1"
        both.back.sendall(b"\0\1\0\4\0\0\0\0")
        both.back.shutdown(1)
        assert read_to_end(both.out) == b"\0\1\0\4\0\0\0\0"


def test_the_return_path_goes_on_after_the_end_of_the_stream() -> None:
    with pair() as both:
        both.connect()
        both.expect_files()
        both.start()
        write_and_close(both.out, [b"everything"])
        assert read_to_end(both.back) == b"everything"
        both.expect_end()
        both.back.sendall(b"thanks")
        assert both.out.recv(100) == b"thanks"


def test_an_empty_stream_is_a_stream() -> None:
    with pair() as both:
        both.connect()
        both.expect_files()
        both.start()
        both.out.close()
        assert read_to_end(both.back) == b""
        sent, received = both.expect_end()
        assert sent.totals == received.totals == control.Totals(0, 0, "0" * 32)


def test_boot_files_come_first_and_are_checked(tmp_path: Path) -> None:
    files = [os.urandom(700_000), b"", b"initrd" * 1000]
    sinks = [tmp_path / str(number) for number in range(3)]
    with pair() as both:
        both.connect(2, files=files, sinks=sinks)
        both.start()
        write_and_close(both.out, [mixed(100)])
        assert [both.target.expect(control.CarrierFile).index for _ in files] == [0, 1, 2]
        both.expect_files()
        assert [sink.read_bytes() for sink in sinks] == files
        read_to_end(both.back)
        sent, received = both.expect_end()
        assert sent.totals == received.totals
        assert known_to_both(sent.counters) == known_to_both(received.counters)


def test_the_digest_can_be_asked_while_the_stream_is_open() -> None:
    with pair() as both:
        both.connect()
        both.expect_files()
        both.start()
        both.out.sendall(b"some")
        assert both.back.recv(100) == b"some"
        first = both.target.digest()
        both.out.sendall(b"more")
        assert both.back.recv(100) == b"more"
        second = both.target.digest()
        assert (first.stream_bytes, first.batches) == (4, 1)
        assert (second.stream_bytes, second.batches) == (8, 2)
        assert first.digest != second.digest == both.source.digest().digest


def test_zero_pages_and_compression_are_counted_apart() -> None:
    builder = StreamBuilder().start({"pc.ram": 4000 * PAGE}).part()
    for number in range(3000):
        builder.zero("pc.ram", number)
    for number in range(500):
        builder.page("pc.ram", number, b"a" * PAGE)
    stream = bytes(builder.end_of_payload().bytes)
    with pair() as both:
        both.connect(compression="zstd")
        both.expect_files()
        both.start()
        write_and_close(both.out, [stream])
        assert read_to_end(both.back) == stream
        counters = both.expect_end()[0].counters
        assert (counters.pages, counters.zero_pages) == (500, 3000)
        assert counters.saved_zero_bytes == 3000 * PAGE
        assert counters.saved_compression_bytes > 490 * PAGE
        assert counters.wire_bytes < 50_000
        assert counters.stream_bytes == len(stream)


def test_what_did_not_shrink_is_counted() -> None:
    with pair() as both:
        both.connect(compression="zstd")
        both.expect_files()
        both.start()
        write_and_close(both.out, [os.urandom(3 << 20), bulk(1000)])
        read_to_end(both.back)
        sent = both.expect_end()[0].counters
        at = dict(zip(LEVELS, sent.level_bytes, strict=True))
        assert 3 << 20 <= sent.dense_bytes <= at[0]
        assert at[1] > 0
        assert at[-5] == at[3] == 0
        assert sent.wire_bytes - 40_000 < at[0] + at[1] - sent.saved_compression_bytes < sent.wire_bytes


def test_what_nobody_wants_compressed_is_not_called_dense() -> None:
    with pair() as both:
        both.connect(compression="none")
        both.expect_files()
        both.start()
        write_and_close(both.out, [os.urandom(1 << 20)])
        read_to_end(both.back)
        sent = both.expect_end()[0].counters
        assert sent.dense_bytes == 0
        assert sent.level_bytes[0] > 1 << 20


def test_progress_is_reported_while_moving() -> None:
    with pair() as both:
        both.connect()
        both.expect_files()
        both.start()
        both.out.sendall(b"x" * 1000)
        progress = both.source.expect(control.CarrierProgress)
        assert progress.stream_bytes <= 1000


def test_a_limit_holds_and_can_be_lifted() -> None:
    stream = os.urandom(4 << 20)
    with pair() as both:
        both.connect(compression="none")
        both.expect_files()
        both.source.tell(control.Limit(100_000))
        both.start()
        write_and_close(both.out, [stream])
        reader = read_in_background(both.back)
        reader.join(0.5)
        assert reader.is_alive()  # at this rate it would take 40 s
        both.source.tell(control.Limit(0))
        reader.join()
        both.expect_end()


def test_quit_after_the_end_is_in_good_order() -> None:
    with pair() as both:
        both.connect()
        both.expect_files()
        both.start()
        write_and_close(both.out, [b"x"])
        read_to_end(both.back)
        both.expect_end()
        for carrier in (both.target, both.source):
            carrier.tell(control.Quit())
            assert carrier.exit_code() == 0


def test_a_peer_that_leaves_after_the_end_is_no_failure() -> None:
    with pair() as both:
        both.connect()
        both.expect_files()
        both.start()
        write_and_close(both.out, [b"x"])
        read_to_end(both.back)
        both.expect_end()
        both.source.tell(control.Quit())
        assert both.source.exit_code() == 0
        both.back.close()  # a hypervisor that closes late finds nobody to tell
        assert both.target.digest().stream_bytes == 1


def test_the_source_ends_without_a_hypervisor_that_listens() -> None:
    """After the last byte QEMU may close at once; return path bytes that come later go nowhere."""
    with pair() as both:
        both.connect()
        both.expect_files()
        both.start()
        both.out.sendall(b"x")
        both.out.close()
        assert read_to_end(both.back) == b"x"
        both.back.sendall(b"late")
        both.expect_end()
        assert both.source.digest().stream_bytes == 1


def test_batches_shrink_on_a_slow_link() -> None:
    """At 10 Mbit/s half a MiB would be 0.4 s; what is read must be sent soon."""
    stream = os.urandom(2 << 20)
    with pair() as both:
        both.connect(compression="none")
        both.expect_files()
        both.source.tell(control.Limit(1_250_000))
        both.start()
        write_and_close(both.out, [stream])
        assert read_to_end(both.back) == stream
        sent, received = both.expect_end()
        assert sent.totals == received.totals
        assert sent.totals.batches > 12  # 4 if all were full; the first few are


def test_a_slow_lane_holds_the_others_back_only_at_the_window() -> None:
    stream = mixed(8000)
    batches: dict[int, list[int]] = {0: [], 1: [], 2: []}
    changed, go_on = threading.Condition(), threading.Event()

    def on_frame(lane: int, header: Header) -> None:
        with changed:
            if header.kind is Kind.BATCH:
                batches[lane].append(header.sequence)
            changed.notify_all()
        if lane == 1 and batches[1]:
            go_on.wait(PATIENCE_S)

    def others_are_far_ahead() -> bool:
        return bool(batches[1]) and max(batches[0] + batches[2], default=0) >= batches[1][0] + WINDOW - 1

    with pair() as both:
        both.connect(3, compression="none", between=FrameRelay(on_frame))
        both.expect_files()
        both.start()
        write_and_close(both.out, [stream])
        got: list[bytes] = []
        reader = threading.Thread(target=lambda: got.append(read_to_end(both.back)), daemon=True)
        reader.start()
        with changed:
            assert changed.wait_for(others_are_far_ahead, PATIENCE_S)
        go_on.set()
        reader.join(PATIENCE_S)
        assert got == [stream]
        sent, received = both.expect_end()
        assert sent.totals == received.totals
