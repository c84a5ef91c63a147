"""Lanes with TLS: nothing is seen on the way, both directions work at once, and no other peer is let in."""

from __future__ import annotations

import os
import random
import socket
import ssl
import threading
from typing import Any

import pytest

from relocd.carrier import control, tls
from relocd.carrier.control import LaneSecurity
from relocd.errors import StreamError
from relocd.tls.authority import Pair, new_lane_pair
from tests.carrier.carriers import Meddler, pair, read_to_end, tcp_pair, write_and_close
from tests.carrier.test_flow import mixed
from tests.pages.streams import bulk

SOURCE, TARGET, FOREIGN = new_lane_pair(), new_lane_pair(), new_lane_pair()
SECRET = b"what nobody on the way may read "


def security(own: Pair, peer: Pair) -> LaneSecurity:
    """``own`` is shown, ``peer`` is expected."""
    return LaneSecurity(own.certificate, own.key, peer.der().hex())


BOTH = security(SOURCE, TARGET), security(TARGET, SOURCE)


@pytest.mark.parametrize(("lanes", "compression"), [(1, "zstd"), (3, "none")])
def test_what_goes_in_comes_out(lanes: int, compression: str) -> None:
    stream = mixed(2000)
    with pair() as both:
        both.connect(lanes, compression=compression, security=BOTH)
        both.expect_files()
        both.start()
        write_and_close(both.out, [stream])
        assert read_to_end(both.back) == stream
        sent, received = both.expect_end()
        assert sent.totals == received.totals


@pytest.mark.parametrize("lanes", [1, 2])
def test_the_return_path_works_while_pages_rush_by(lanes: int) -> None:
    stream = bulk(20_000)
    back = random.Random(3).randbytes(20_000_000)
    heard = bytearray()

    def listen(sock: socket.socket) -> None:
        while piece := sock.recv(1 << 20):
            heard.extend(piece)

    with pair() as both:
        both.connect(lanes, compression="none", security=BOTH)
        both.expect_files()
        both.start()
        listener = threading.Thread(target=listen, args=(both.out,), daemon=True)
        listener.start()
        write_and_close(both.out, [stream])
        write_and_close(both.back, [back])
        assert read_to_end(both.back) == stream
        both.expect_end()
        listener.join(20)
    assert bytes(heard) == back


class Watched:
    """Passes calls on to a connection, and notes whether two were ever under way at once."""

    def __init__(self, wrapped: ssl.SSLObject) -> None:
        self._wrapped = wrapped
        self._busy = threading.Lock()
        self.overlapped = False

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any) -> Any:
            if not self._busy.acquire(blocking=False):
                self.overlapped = True
                return getattr(self._wrapped, name)(*arguments)
            try:
                return getattr(self._wrapped, name)(*arguments)
            finally:
                self._busy.release()

        return call


def armour(security: LaneSecurity, *, server_side: bool) -> tls.Armour:
    made = tls.Armour(security, server_side=server_side)
    made.trust_peer()
    return made


def test_openssl_is_never_called_by_two_threads_at_once() -> None:
    near, far = tcp_pair()
    links: list[tls.TlsLink] = []
    shaking = [
        threading.Thread(target=lambda: links.append(armour(BOTH[0], server_side=False).link(near, 0))),
        threading.Thread(target=lambda: links.append(armour(BOTH[1], server_side=True).link(far, 0))),
    ]
    content = memoryview(random.Random(5).randbytes(30_000_000))
    heard = [memoryview(bytearray(len(content))) for _ in range(2)]
    with near, far:
        for thread in shaking:
            thread.start()
        for thread in shaking:
            thread.join(20)
        watched = [Watched(link._channel._tls) for link in links]
        for link, watch in zip(links, watched, strict=True):
            link._channel._tls = watch  # type: ignore[assignment]  # stands for a connection
        threads = [threading.Thread(target=link.send, args=([content],)) for link in links]
        threads += [
            threading.Thread(target=link.receive, args=(memory,))
            for link, memory in zip(links, heard, strict=True)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert all(memory == content for memory in heard)
    assert not any(watch.overlapped for watch in watched)


def test_nothing_is_readable_on_the_way() -> None:
    seen = bytearray()

    def look(_: int, data: bytes) -> bytes:
        seen.extend(data)
        return data

    with pair() as both:
        both.connect(compression="none", between=Meddler(look), security=BOTH)
        both.expect_files()
        both.start()
        write_and_close(both.out, [b"QEVM\0\0\0\3", SECRET * 1000])
        assert SECRET in read_to_end(both.back)
        both.expect_end()
    assert len(seen) > len(SECRET) * 1000
    assert SECRET not in seen


def test_a_flipped_bit_is_caught() -> None:
    def flip(offset: int, data: bytes) -> bytes:
        at = 100_000 - offset
        return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :] if 0 <= at < len(data) else data

    with pair() as both:
        both.connect(compression="none", between=Meddler(flip), security=BOTH)
        both.start()
        write_and_close(both.out, [mixed(500)])
        failed = both.target.last(control.CarrierFailed)
    assert failed.code == "unreachable"
    assert "bad record mac" in failed.text.lower()


@pytest.mark.parametrize(
    ("ours", "theirs", "says"),
    [
        (security(FOREIGN, TARGET), BOTH[1], "another certificate"),
        (BOTH[0], security(FOREIGN, SOURCE), ""),  # the source hangs up; what the target hears first is luck
        (None, BOTH[1], "does not speak TLS"),
    ],
    ids=["foreign source", "foreign target", "plain source"],
)
def test_another_peer_is_not_let_in(
    ours: LaneSecurity | None, theirs: LaneSecurity | None, says: str
) -> None:
    with pair() as both:
        both.connect(security=(ours, theirs))
        both.start()
        both.out.sendall(b"QEVM\0\0\0\3")
        failed = both.target.last(control.CarrierFailed)
        assert failed.code == "stream"
        assert says in failed.text
        assert both.source.last(control.CarrierFailed)


@pytest.mark.parametrize("dripping", [False, True])
def test_who_does_not_shake_hands_is_left(monkeypatch: pytest.MonkeyPatch, dripping: bool) -> None:
    monkeypatch.setattr(tls, "HANDSHAKE_S", 0.3)
    near, far = tcp_pair()
    left = threading.Event()

    def drip() -> None:
        while dripping and not left.wait(0.02):
            far.send(b"\0")

    with near, far:
        far.send(b"\x16\3\1\x40\0\1\0\x3f")  # a record of 16 KiB begins, and in it a client's hello
        dripper = threading.Thread(target=drip)
        dripper.start()
        with pytest.raises(StreamError, match="lane 3 could not be encrypted: the peer did not shake hands"):
            tls.Armour(BOTH[1], server_side=True).link(near, 3)
        left.set()
        dripper.join()


def test_who_keeps_tls_busy_is_left() -> None:
    near, far = tcp_pair()
    with near, far:
        shaking = threading.Thread(target=lambda: armour(BOTH[0], server_side=False).link(far, 0))
        shaking.start()
        link = armour(BOTH[1], server_side=True).link(near, 0)
        shaking.join(20)
        link._channel.send(bytes(tls.ANSWERS_BYTES_MAX))  # as answers would gather that nobody sends
        with pytest.raises(OSError, match="new keys again and again"):
            link.receive(memoryview(bytearray(1)))


def test_a_handshake_is_not_prolonged_by_dripping(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls, "HANDSHAKE_S", 0.3)
    near, far = tcp_pair()
    over = threading.Event()

    def drip() -> None:
        far.send(b"\x16\x03\x01\x20\x00\x01\x00\x1f\xfc")
        while not over.wait(0.02):
            far.send(b"x")

    with near, far:
        dripping = threading.Thread(target=drip)
        dripping.start()
        try:
            with pytest.raises(StreamError, match="could not be encrypted"):
                tls.Armour(BOTH[1], server_side=True).link(near, 3)
        finally:
            over.set()
            dripping.join()


def test_an_older_tls_is_refused() -> None:
    near, far = tcp_pair()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    outcome: list[str] = []

    def accept() -> None:
        try:
            tls.Armour(BOTH[1], server_side=True).link(near, 0)
        except StreamError as error:
            outcome.append(str(error))

    with near, far:
        accepting = threading.Thread(target=accept)
        accepting.start()
        with pytest.raises(OSError, match=r"(?i)alert|eof|reset"):
            context.wrap_socket(far.dup())
        accepting.join(20)
    assert "protocol" in outcome[0]


def test_keys_that_are_none_are_refused() -> None:
    with pytest.raises(StreamError, match="keys of the lanes"):
        tls.Armour(LaneSecurity("nonsense", "nonsense", os.urandom(40).hex()), server_side=False)
