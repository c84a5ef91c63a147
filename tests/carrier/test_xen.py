"""Streams of Xen through two carriers, and what a carrier makes of a stream that is not what it was told."""

from __future__ import annotations

import os
import random

import numpy as np
import pytest

from relocd.carrier import control
from relocd.pages.items import PAGE_SIZE
from relocd.pages.stream_format import StreamFormat
from tests.carrier.carriers import Carrier, known_to_both, pair, read_to_end, tcp_pair, write_and_close
from tests.pages.xen_streams import bulk


def mixed(pages: int) -> bytes:
    """A third of the pages zero, a third that shrink, a third that do not."""
    rows = np.zeros((pages, PAGE_SIZE), np.uint8)
    rows[::3, :100] = 1
    rows[1::3] = np.random.default_rng(1).integers(0, 256, (len(rows[1::3]), PAGE_SIZE), dtype=np.uint8)
    return bulk(rows)


@pytest.mark.parametrize(("lanes", "compression"), [(1, "none"), (2, "auto"), (3, "zstd")])
def test_what_goes_in_comes_out(lanes: int, compression: str) -> None:
    stream = mixed(3000)
    with pair() as both:
        both.connect(lanes, compression=compression, stream_format=StreamFormat.XEN)
        both.expect_files()
        both.start()
        write_and_close(both.out, [stream])
        assert read_to_end(both.back) == stream
        sent, received = both.expect_end()
        assert sent.totals == received.totals
        assert sent.totals.stream_bytes == len(stream)
        assert known_to_both(sent.counters) == known_to_both(received.counters)
        assert (sent.counters.pages, sent.counters.zero_pages) == (2000, 1000)
        assert sent.counters.saved_zero_bytes == 1000 * PAGE_SIZE
        assert sent.counters.wire_bytes < 2010 * PAGE_SIZE


def test_pieces_of_any_size_come_out_as_they_went_in() -> None:
    stream = mixed(300)
    cuts = sorted(random.Random(7).sample(range(len(stream)), 300))
    with pair() as both:
        both.connect(2, stream_format=StreamFormat.XEN)
        both.expect_files()
        both.start()
        write_and_close(
            both.out, [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
        )
        assert read_to_end(both.back) == stream
        both.expect_end()


def test_a_guest_of_zeros_takes_next_to_nothing() -> None:
    stream = bulk(np.zeros((16384, PAGE_SIZE), np.uint8))
    with pair() as both:
        both.connect(stream_format=StreamFormat.XEN)
        both.expect_files()
        both.start()
        write_and_close(both.out, [stream])
        assert read_to_end(both.back) == stream
        sent, received = both.expect_end()
        assert sent.totals == received.totals
        assert sent.counters.zero_pages == 16384
        assert sent.counters.wire_bytes < 50_000


@pytest.mark.parametrize("stream_format", StreamFormat)
def test_a_stream_that_is_not_what_was_said_arrives_all_the_same(stream_format: StreamFormat) -> None:
    stream = os.urandom(1 << 20)
    with pair() as both:
        both.connect(stream_format=stream_format)
        both.expect_files()
        both.start()
        write_and_close(both.out, [stream])
        assert read_to_end(both.back) == stream
        both.expect_end()


def test_a_peer_that_sends_items_of_another_format_is_refused() -> None:
    """Two carriers that were told different things: a source that lies cannot do more than that."""
    with Carrier() as source, Carrier() as target:
        near, far = tcp_pair()
        source.tell(control.Send(1, stream_format=StreamFormat.XEN), near)
        target.tell(control.Receive(1, stream_format=StreamFormat.QEMU), far)
        out, from_hypervisor = tcp_pair()
        back, to_hypervisor = tcp_pair()
        for carrier, sock in ((source, from_hypervisor), (target, to_hypervisor)):
            carrier.expect(control.CarrierFilesDone)
            carrier.tell(control.Stream(), sock)
        with out, back:
            write_and_close(out, [mixed(30)])
            failed = target.expect(control.CarrierFailed)
        assert failed.code == "stream"
        assert "a stream of this format has no item" in failed.text


def test_pages_of_xen_are_never_placed() -> None:
    with Carrier() as target:
        near, far = tcp_pair()
        target.tell(control.Receive(1, stream_format=StreamFormat.XEN), far)
        target.expect(control.CarrierFilesDone)
        with near:
            target.tell(control.Memory("pc.ram", 0, PAGE_SIZE), os.memfd_create("guest"))
            assert "only pages of QEMU's stream" in target.expect(control.CarrierFailed).text
