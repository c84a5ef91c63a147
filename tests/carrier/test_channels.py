"""Channels of the hypervisor: each arrives as it left and waits for no other, or all ends with a reason."""

from __future__ import annotations

import itertools
import random
import select
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from relocd.carrier import control
from relocd.carrier.channels import Channel
from relocd.carrier.control import CarrierEnded, CarrierFailed, LaneSecurity, Totals
from relocd.carrier.lanes import HypervisorStream, Lane
from relocd.errors import ProtocolError
from relocd.pages import frames
from relocd.pages.choice import LEVELS
from relocd.pages.digest import StreamDigest, batch_digest
from relocd.pages.frames import HEADER_BYTES, End, Kind
from relocd.pages.limits import CHANNEL_BYTES_MAX, CHANNELS_MAX
from tests.carrier.carriers import (
    Carrier,
    Meddler,
    Pair,
    known_to_both,
    pair,
    read_all,
    read_in_background,
    read_to_end,
    stream_pair,
    tcp_pair,
    write_and_close,
)
from tests.carrier.inprocess import Ear
from tests.carrier.test_faults import BATCH, cut, flip, frame
from tests.carrier.test_flow import PAGE, mixed
from tests.carrier.test_memory import SIZE, memory_of
from tests.carrier.test_tls import BOTH
from tests.pages.streams import bulk
from tests.pages.test_multifd import INITIAL, packet

PLAIN: tuple[None, None] = (None, None)
BUFFERS_BYTES = 8 << 20
"""More than all buffers between two hypervisors hold."""


@contextmanager
def moving(
    channels: int,
    *,
    stream_bytes_max: int = 0,
    between: Callable[[int], tuple[socket.socket, socket.socket]] = lambda _: tcp_pair(),
) -> Iterator[Pair]:
    """Two carriers that move one main stream on lane 0 and the channels on the lanes after it."""
    with pair() as both:
        both.connect(
            channels=channels, compression="none", stream_bytes_max=stream_bytes_max, between=between
        )
        both.expect_files()
        both.start()
        yield both


def take(sock: socket.socket, size: int) -> bytes:
    """So many bytes, while more may follow."""
    data = b""
    while len(data) < size:
        piece = sock.recv(size - len(data))
        assert piece, "it ended"
        data += piece
    return data


def passes(near: socket.socket, far: socket.socket, piece: bytes) -> None:
    """What goes in comes out, at once."""
    near.sendall(piece)
    assert take(far, len(piece)) == piece


def on_lane(
    number: int, meddle: Callable[[int, bytes], bytes | None]
) -> Callable[[int], tuple[socket.socket, socket.socket]]:
    """Somebody is on this lane, nobody on the others."""
    return lambda lane: Meddler(meddle)(lane) if lane == number else tcp_pair()


def failed(carrier: Carrier) -> CarrierFailed:
    """Why it gave up; it did not claim to have ended, neither before nor after."""
    failure = carrier.last(CarrierFailed)
    while carrier.event() is not None:  # what other threads counted meanwhile
        pass
    assert carrier.exit_code() == 1
    assert not [event for event in carrier.events if isinstance(event, CarrierEnded)]
    return failure


def both_failed(both: Pair) -> None:
    """It does not matter who noticed first."""
    for carrier in (both.source, both.target):
        failure = failed(carrier)
        assert failure.code in ("unreachable", "stream")
        assert failure.text


# -- what goes in comes out


@pytest.mark.parametrize(
    ("lanes", "channels", "security"),
    [(1, 1, PLAIN), (1, 4, PLAIN), (2, 3, PLAIN), (3, CHANNELS_MAX, PLAIN), (1, 2, BOTH), (2, 4, BOTH)],
)
def test_what_goes_in_comes_out_of_its_namesake(
    lanes: int, channels: int, security: tuple[LaneSecurity | None, LaneSecurity | None]
) -> None:
    main = mixed(1000)
    sizes = itertools.cycle((3_000_000, 1_234_567, 5, 2 * CHANNEL_BYTES_MAX))
    contents = [
        random.Random(number).randbytes(size) for number, size in zip(range(channels), sizes, strict=False)
    ]
    with pair() as both:
        both.connect(lanes, channels=channels, security=security)
        both.expect_files()
        both.start()
        for sock, data in zip([both.out, *both.channels_out], [main, *contents], strict=True):
            write_and_close(sock, [data])
        assert read_all([both.back, *both.channels_back]) == [main, *contents]
        sent, received = both.expect_end()
        assert sent.totals == received.totals == both.source.digest() == both.target.digest()
        assert sent.totals.stream_bytes == len(main) + sum(map(len, contents))
        assert sent.counters.stream_bytes == sent.totals.stream_bytes
        assert known_to_both(sent.counters) == known_to_both(received.counters)


def test_channels_with_nothing_in_them_are_channels() -> None:
    with moving(2) as both:
        for sock in (both.out, *both.channels_out):
            sock.close()
        assert read_all([both.back, *both.channels_back]) == [b"", b"", b""]
        sent, received = both.expect_end()
        assert sent.totals == received.totals
        assert (sent.totals.stream_bytes, sent.totals.batches) == (0, 0)


def test_pieces_of_any_size_come_out_as_they_went_in() -> None:
    """Also such that end inside of a packet, for which a source waits a little."""
    content = INITIAL + b"".join(packet(number % 4, 3000 * number) for number in range(40))
    chance = random.Random(7)
    cuts = [0, *sorted(chance.sample(range(len(content)), 300)), len(content)]
    with moving(1) as both:
        write_and_close(both.channels_out[0], [content[a:b] for a, b in itertools.pairwise(cuts)])
        both.out.close()
        assert read_all(both.channels_back) == [content]
        both.expect_end()


def test_the_last_byte_of_a_packet_that_is_not_complete_does_not_wait_for_more() -> None:
    content = INITIAL + packet(3, 5000)
    with moving(1) as both:
        for piece in (content[:10], content[10:64], content[64:100], content[100:2000], content[2000:]):
            passes(both.channels_out[0], both.channels_back[0], piece)


class Hesitant(HypervisorStream):
    """A hypervisor that goes on only when somebody waits for it."""

    def __init__(self, *parts: bytes) -> None:
        self._ours, theirs = stream_pair()
        super().__init__(theirs)
        self._parts = list(parts)
        self.go_on()

    def go_on(self) -> None:
        """Say the next part, and that it was the last."""
        if self._parts:
            self._ours.sendall(self._parts.pop(0))
        if not self._parts:
            self._ours.shutdown(socket.SHUT_WR)

    def wait(self, patience_ms: int | None = None) -> bool:
        self.go_on()
        return super().wait(patience_ms)


class Sluggish(Hesitant):
    """One that goes on only when what it said has gone."""

    def wait(self, patience_ms: int | None = None) -> bool:
        return HypervisorStream.wait(self, patience_ms)


def pieces_of(stream: Hesitant) -> list[bytes]:
    """What a source puts on the lane of this hypervisor's channel."""
    lane, far = stream_pair()
    ear = Ear(socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)[0])
    pieces: list[bytes] = []
    with lane, far:
        Channel(Lane(lane, 1)).send(stream, ear, lambda _: stream.go_on())
        while not pieces or pieces[-1]:
            header = frames.unpack(take(far, HEADER_BYTES))
            assert (header.kind, header.sequence) == (Kind.CHANNEL, len(pieces))
            pieces.append(take(far, header.wire_bytes))
    return pieces


def test_a_packet_that_comes_soon_goes_in_one_piece() -> None:
    one, two = INITIAL + packet(3, 5000), packet(1, 96)
    assert pieces_of(Hesitant(one[:64], one[64:70], one[70:2000], one[2000:])) == [one[:64], one[64:], b""]
    assert pieces_of(Hesitant(one[:70], one[70:] + two[:5], two[5:])) == [one + two, b""]


def test_a_packet_that_takes_its_time_goes_in_pieces() -> None:
    whole = INITIAL + packet(3, 5000)
    assert pieces_of(Sluggish(whole[:70], whole[70:])) == [whole[:70], whole[70:], b""]


def test_a_channel_may_end_inside_of_a_packet() -> None:
    assert pieces_of(Hesitant(INITIAL + packet(3, 5000)[:-1])) == [INITIAL + packet(3, 5000)[:-1], b""]
    assert pieces_of(Hesitant(INITIAL[:5])) == [INITIAL[:5], b""]


def test_pages_of_a_channel_are_counted_by_the_source() -> None:
    packets = [packet(100, 30_000), packet(0, 30_000), packet(20, 20 * PAGE + 9)]
    with moving(2) as both:
        for sock, some in zip(both.channels_out, (packets, packets[:1]), strict=True):
            write_and_close(sock, [INITIAL, *some])
        both.out.close()
        read_all([both.back, *both.channels_back])
        counters = both.expect_end()[0].counters
    assert counters.pages == 220
    assert counters.saved_compression_bytes == 2 * (100 * PAGE - 30_000)
    assert dict(zip(LEVELS, counters.level_bytes, strict=True))[1] == 220 * PAGE
    assert counters.dense_bytes == 0


# -- none waits for another


@pytest.mark.parametrize("unread", [0, 2])
def test_a_channel_that_is_not_read_holds_nobody_up(unread: int) -> None:
    """A hypervisor may not read one before it has everything of the others."""
    main, content = mixed(2000), random.Random(1).randbytes(BUFFERS_BYTES)
    with moving(3) as both:
        others = [number for number in range(3) if number != unread]
        stuck = write_and_close(both.channels_out[unread], [content])
        for number in others:
            write_and_close(both.channels_out[number], [content])
        assert read_all([both.channels_back[number] for number in others]) == [content, content]
        write_and_close(both.out, [main])
        assert take(both.back, len(main)) == main
        both.back.sendall(b"answer")
        assert take(both.out, 6) == b"answer"
        assert both.target.digest().stream_bytes >= 2 * len(content) + len(main)
        assert stuck.is_alive()  # that was not just room in buffers
        assert read_to_end(both.channels_back[unread]) == content
        assert read_to_end(both.back) == b""
        sent, received = both.expect_end()
        assert sent.totals == received.totals


def test_a_main_stream_that_is_not_read_holds_no_channel_up() -> None:
    """A hypervisor may not go on with it before it has everything of the channels."""
    main, content = bulk(BUFFERS_BYTES // PAGE), random.Random(1).randbytes(BUFFERS_BYTES)
    with moving(2) as both:
        stuck = write_and_close(both.out, [main])
        for channel in both.channels_out:
            write_and_close(channel, [content])
        assert read_all(both.channels_back) == [content, content]
        assert stuck.is_alive()
        assert read_to_end(both.back) == main
        both.expect_end()


# -- the end


def test_channels_may_end_before_the_main_stream() -> None:
    with moving(2) as both:
        passes(both.channels_out[0], both.channels_back[0], b"first")
        for channel in both.channels_out:
            channel.shutdown(socket.SHUT_WR)
        assert read_all(both.channels_back) == [b"", b""]
        passes(both.out, both.back, b"then")
        both.out.shutdown(socket.SHUT_WR)
        assert read_to_end(both.back) == b""
        sent, received = both.expect_end()
        assert sent.totals == received.totals
        assert sent.totals.stream_bytes == 9


def test_a_channel_may_go_on_after_the_main_stream() -> None:
    with moving(2) as both:
        passes(both.out, both.back, b"first")
        both.out.shutdown(socket.SHUT_WR)
        both.channels_out[1].shutdown(socket.SHUT_WR)
        assert read_to_end(both.channels_back[1]) == b""
        for number in range(20):
            passes(both.channels_out[0], both.channels_back[0], b"%05d" % number)
            assert both.source.digest() == both.target.digest()
        both.channels_out[0].shutdown(socket.SHUT_WR)
        assert read_all([both.back, both.channels_back[0]]) == [b"", b""]
        sent, received = (carrier.last(CarrierEnded) for carrier in (both.source, both.target))
        assert sent.totals == received.totals
        assert sent.totals.stream_bytes == 105


@pytest.mark.parametrize("last", [0, 1])
def test_only_the_end_of_all_channels_is_the_end(last: int) -> None:
    with moving(2) as both:
        both.out.shutdown(socket.SHUT_WR)
        both.channels_out[1 - last].shutdown(socket.SHUT_WR)
        assert read_to_end(both.channels_back[1 - last]) == b""
        assert not select.select([both.back], [], [], 0.1)[0]
        for carrier in (both.source, both.target):
            carrier.digest()  # nobody has said anything before that
            assert not [event for event in carrier.events if isinstance(event, CarrierEnded | CarrierFailed)]
        both.channels_out[last].shutdown(socket.SHUT_WR)
        assert read_to_end(both.back) == b""
        both.expect_end()


def test_hypervisors_may_leave_after_the_end() -> None:
    with moving(2) as both:
        for sock in (both.out, *both.channels_out):
            sock.close()
        both.expect_end()
        for sock in (both.back, *both.channels_back):
            sock.close()
        for carrier in (both.source, both.target):
            carrier.tell(control.Quit())
            assert carrier.exit_code() == 0


# -- the limit


def test_the_limit_is_one_for_the_main_stream_and_all_channels() -> None:
    """At a byte a second the first to send has used up what the others may in this test."""
    with pair() as both:
        both.connect(channels=2)
        both.expect_files()
        both.source.tell(control.Limit(1))
        both.start()
        passes(both.channels_out[0], both.channels_back[0], b"x" * 1000)
        for sock in (both.out, *both.channels_out):
            sock.sendall(b"more")
        assert not select.select([both.back, *both.channels_back], [], [], 0.2)[0]
        both.source.tell(control.Limit(0))
        for sock in (both.back, *both.channels_back):
            assert take(sock, 4) == b"more"


def test_the_end_of_a_channel_is_let_go_with_the_limit() -> None:
    with moving(1) as both:
        both.source.tell(control.Limit(1))
        both.source.digest()  # it has obeyed
        passes(both.channels_out[0], both.channels_back[0], b"x" * 1000)
        for sock in (both.out, *both.channels_out):
            sock.shutdown(socket.SHUT_WR)
        both.source.tell(control.Limit(0))
        assert read_all([both.back, *both.channels_back]) == [b"", b""]
        both.expect_end()


# -- what ends it


@pytest.mark.parametrize("at", [2, 18, 45, 100_000])
def test_a_flipped_bit_is_caught(at: int) -> None:
    """In the magic, a size, content."""
    content = random.Random(at).randbytes(300_000)
    with moving(2, between=on_lane(2, flip(at))) as both:
        for sock in (both.back, *both.channels_back):
            read_in_background(sock)
        for sock in (both.out, *both.channels_out):
            write_and_close(sock, [content])
        failure = failed(both.target)
        assert failure.code == "stream"
        assert "damaged on its way" in failure.text or "not a frame" in failure.text


def test_channels_that_change_places_are_caught() -> None:
    lanes = [tcp_pair() for _ in range(3)]
    with moving(2, between=lambda number: (lanes[number][0], lanes[[0, 2, 1][number]][1])) as both:
        for channel, data in zip(both.channels_out, (b"one", b"two"), strict=True):
            write_and_close(channel, [data])
        assert read_all(both.channels_back) == [b"two", b"one"]
        both.out.close()
        failure = failed(both.target)
        assert failure.code == "stream"
        assert "what arrived is not what was sent: 6 bytes in 2 batches" in failure.text


@pytest.mark.parametrize("at", [0, 10, 200_000])
def test_a_channels_lane_that_is_cut_ends_both(at: int) -> None:
    with moving(2, between=on_lane(1, cut(at))) as both:
        for channel in both.channels_back:
            read_in_background(channel)
        for channel in both.channels_out:
            write_and_close(channel, [bytes(1_000_000)])
        both_failed(both)
        assert both.out.recv(1) == both.back.recv(1) == b""  # the hypervisors notice


def test_a_channels_lane_that_breaks_after_its_end_ends_both() -> None:
    near, far = tcp_pair()
    inner = near.dup()
    with inner, moving(2, between=lambda number: (near, far) if number == 2 else tcp_pair()) as both:
        both.channels_out[1].shutdown(socket.SHUT_WR)
        assert read_to_end(both.channels_back[1]) == b""
        inner.shutdown(socket.SHUT_RDWR)
        both_failed(both)


def test_all_streams_of_the_hypervisors_close_with_a_failure() -> None:
    with moving(2) as both:
        passes(both.channels_out[0], both.channels_back[0], b"something")
        both.target.control.close()
        assert both.target.exit_code() == 0
        assert read_all([both.back, *both.channels_back]) == [b"", b"", b""]
        assert both.source.expect(CarrierFailed).text == "the peer gave up: its daemon ended the relocation"
        assert read_all([both.out, *both.channels_out]) == [b"", b"", b""]


def test_a_hypervisor_that_drops_a_channel_while_it_receives_ends_both() -> None:
    with moving(2) as both:
        write_and_close(both.channels_out[1], [bytes(BUFFERS_BYTES)])
        take(both.channels_back[1], 1000)
        both.channels_back[1].close()
        failure = failed(both.target)
        assert failure.code == "hypervisor"
        assert failure.text.startswith("the hypervisor's stream is broken")
        assert failed(both.source).code in ("stream", "unreachable")


@pytest.mark.parametrize("shares", [(0, 100_001, 0), (0, 50_000, 50_001), (40_000, 30_000, 30_001)])
def test_a_stream_beyond_its_limit_is_refused_wherever_it_comes(shares: tuple[int, int, int]) -> None:
    with moving(2, stream_bytes_max=100_000) as both:
        for sock in (both.back, *both.channels_back):
            read_in_background(sock)
        for sock, size in zip((both.out, *both.channels_out), shares, strict=True):
            write_and_close(sock, [random.Random(size).randbytes(size)])
        failure = failed(both.target)
        assert failure.code == "stream"
        assert failure.text.startswith("the stream is longer than 100000 bytes, the most that the domain")


def test_a_stream_as_long_as_its_limit_is_taken() -> None:
    with moving(2, stream_bytes_max=100_000) as both:
        for sock, size in zip((both.out, *both.channels_out), (40_000, 30_000, 30_000), strict=True):
            write_and_close(sock, [random.Random(size).randbytes(size)])
        read_all([both.back, *both.channels_back])
        assert both.expect_end()[1].totals.stream_bytes == 100_000


# -- a hostile peer


class Rogue:
    """A target carrier with two channels, and what a source and both hypervisors have of it."""

    def __init__(self, target: Carrier) -> None:
        self.target = target
        self.lanes, far = zip(*[tcp_pair() for _ in range(3)], strict=True)
        (self.back, *self.channels), theirs = zip(*[stream_pair() for _ in range(3)], strict=True)
        target.tell(control.Receive(3, channels=2), *far)
        target.tell(control.Stream(2), *theirs)


def end(main: list[bytes], *channels: list[bytes]) -> bytes:
    """Payload of the END of these batches and pieces."""
    whole = chained(main)
    for pieces in channels:
        whole.join(chained(pieces))
    size = sum(len(piece) for pieces in channels for piece in pieces)
    return End(size, whole.batches, whole.digest()).to_bytes()


def chained(pieces: list[bytes]) -> StreamDigest:
    digest = StreamDigest()
    for sequence, piece in enumerate(pieces):
        digest.add(sequence, batch_digest(piece))
    return digest


def channel(*pieces: bytes) -> bytes:
    """Frames of these pieces."""
    return b"".join(frame(Kind.CHANNEL, piece, sequence) for sequence, piece in enumerate(pieces))


def test_a_peer_that_keeps_to_the_rules_is_believed() -> None:
    """What the refusals that follow are measured against."""
    with Carrier() as target:
        peer = Rogue(target)
        peer.lanes[0].sendall(frame(Kind.END, end([], [b"a", b"b"], [b"c"])))
        peer.lanes[1].sendall(channel(b"a", b"b", b""))
        peer.lanes[2].sendall(channel(b"c", b""))
        assert read_all([peer.back, *peer.channels]) == [b"", b"ab", b"c"]
        assert target.last(CarrierEnded).totals.stream_bytes == 3


HOSTILE: dict[str, tuple[dict[int, bytes], str]] = {
    "a channel's piece on a lane of the main stream": (
        {0: channel(b"x")},
        "lane 0 carries a CHANNEL frame",
    ),
    "a batch on a channel's lane": ({1: frame(Kind.BATCH, BATCH)}, "lane 1 carries a BATCH frame"),
    "an end on a channel's lane": (
        {2: frame(Kind.END, End(0, 0, bytes(16)).to_bytes())},
        "lane 2 carries a END frame",
    ),
    "a file on a channel's lane": ({1: frame(Kind.FILE, b"x")}, "lane 1 carries a FILE frame"),
    "an answer on a channel's lane": ({1: frame(Kind.RETURN, b"x")}, "lane 1 carries a RETURN frame"),
    "garbage on a channel's lane": ({2: b"\x17" * 64}, "not a frame"),
    "a channel that does not begin at 0": ({2: frame(Kind.CHANNEL, b"x", 1)}, "channel on lane 2 is missing"),
    "a missing piece": (
        {1: channel(b"x") + frame(Kind.CHANNEL, b"x", 2)},
        "channel on lane 1 is missing",
    ),
    "a piece twice": ({1: channel(b"x") * 2}, "channel on lane 1 is missing"),
    "an end that skips a piece": (
        {1: channel(b"x") + frame(Kind.CHANNEL, b"", 2)},
        "channel on lane 1 is missing",
    ),
    "a piece cut short": ({1: channel(b"something")[:-1]}, "lane 1 ended inside a frame"),
    "a lane that ends before its channel": (
        {1: channel(b"x")},
        "lane 1 was closed by the peer before the stream was complete",
    ),
    "another content": (
        {0: frame(Kind.END, end([], [b"a"], [b"b"])), 1: channel(b"a", b""), 2: channel(b"c", b"")},
        "not what was sent: 2 bytes in 2 batches",
    ),
    "contents that changed places": (
        {0: frame(Kind.END, end([], [b"a"], [b"b"])), 1: channel(b"b", b""), 2: channel(b"a", b"")},
        "not what was sent: 2 bytes in 2 batches",
    ),
    "other pieces": (
        {0: frame(Kind.END, end([], [b"ab"], [])), 1: channel(b"a", b"b", b""), 2: channel(b"")},
        "not what was sent: 2 bytes in 2 batches",
    ),
    "channels that the end knows nothing of": (
        {0: frame(Kind.END, End(0, 0, bytes(16)).to_bytes()), 1: channel(b""), 2: channel(b"")},
        "not what was sent: 0 bytes in 0 batches",
    ),
    "a peer that gives up": (
        {2: frame(Kind.ABORT, b"enough")},
        "the peer gave up: enough",
    ),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_peer_gets_nowhere(case: str) -> None:
    sent, reason = HOSTILE[case]
    with Carrier() as target:
        peer = Rogue(target)
        for number, data in sent.items():
            peer.lanes[number].sendall(data)
            if case in ("a piece cut short", "a lane that ends before its channel"):
                peer.lanes[number].shutdown(socket.SHUT_WR)
        assert reason in failed(target).text


def test_an_end_without_the_ends_of_the_channels_is_none() -> None:
    with Carrier() as target:
        peer = Rogue(target)
        peer.lanes[0].sendall(frame(Kind.END, end([], [b"a"], [b"c"])))
        peer.lanes[1].sendall(channel(b"a", b""))
        peer.lanes[2].sendall(channel(b"c"))
        assert [take(sock, 1) for sock in peer.channels] == [b"a", b"c"]
        peer.lanes[0].shutdown(socket.SHUT_WR)
        assert failed(target).text == "lane 0 was closed by the peer before the stream was complete"


@pytest.mark.parametrize("kind", [Kind.RETURN, Kind.CHANNEL, Kind.BATCH])
def test_nothing_comes_back_on_a_channels_lane(kind: Kind) -> None:
    near, far = zip(*[tcp_pair() for _ in range(2)], strict=True)
    with Carrier() as source:
        source.tell(control.Send(2, channels=1), *near)
        source.expect(control.CarrierFilesDone)
        far[1].sendall(frame(kind, b"x"))
        assert failed(source).text == f"lane 1 carries a {kind.name} frame in the wrong direction"


# -- a daemon that errs


@pytest.mark.parametrize("given", [0, 1, 3])
@pytest.mark.parametrize("begin", [control.Send(3, channels=2), control.Receive(3, channels=2)])
def test_a_stream_with_another_number_of_channels_is_refused(
    begin: control.Send | control.Receive, given: int
) -> None:
    lanes = [tcp_pair() for _ in range(3)]
    streams = [stream_pair() for _ in range(1 + given)]
    with Carrier() as carrier:
        carrier.tell(begin, *[near for near, _ in lanes])
        carrier.expect(control.CarrierFilesDone)
        carrier.tell(control.Stream(given), *[theirs for _, theirs in streams])
        failure = failed(carrier)
        assert (failure.code, failure.text) == ("protocol", f"{given} channels come with the stream, not 2")


@pytest.mark.parametrize("count", [1, 3])
def test_channels_that_are_not_beside_the_command_are_refused(count: int) -> None:
    streams = [stream_pair() for _ in range(count)]
    with Carrier() as carrier:
        carrier.tell(control.Stream(1), *[theirs for _, theirs in streams])
        assert f"brings {count} descriptors, not 2" in failed(carrier).text


def test_lanes_that_are_all_channels_are_refused() -> None:
    near, far = zip(*[tcp_pair() for _ in range(2)], strict=True)
    datagram = control.dump_command(control.Receive(2, channels=1)).replace(
        b'"channels": 1', b'"channels": 2'
    )
    with pytest.raises(ProtocolError):
        control.parse_command(datagram)
    with Carrier() as carrier:
        socket.send_fds(carrier.control, [datagram], [sock.fileno() for sock in near])
        failure = failed(carrier)
        assert failure.code == "protocol"
        assert "2 lanes leave none for the main stream beside 2 channels" in failure.text
    for sock in (*near, *far):
        sock.close()


def test_no_memory_is_taken_beside_channels() -> None:
    near, far = zip(*[tcp_pair() for _ in range(2)], strict=True)
    with Carrier() as target:
        target.tell(control.Receive(2, channels=1), *far)
        target.expect(control.CarrierFilesDone)
        target.tell(control.Memory("pc.ram", 0, SIZE), memory_of(SIZE))
        failure = failed(target)
        assert failure.code == "protocol"
        assert failure.text == "no pages are placed beside a hypervisor that loads them from its channels"
    for sock in near:
        sock.close()


def test_without_channels_the_digest_is_that_of_the_main_stream() -> None:
    with moving(0) as both:
        write_and_close(both.out, [b"everything"])
        read_to_end(both.back)
        alone = both.expect_end()[0].totals
    with moving(1) as both:
        write_and_close(both.out, [b"everything"])
        both.channels_out[0].close()
        read_to_end(both.back)
        beside = both.expect_end()[0].totals
    assert alone == Totals(10, 1, alone.digest)
    assert beside == Totals(10, 1, beside.digest)
    assert beside.digest != alone.digest
