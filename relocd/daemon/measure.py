"""Measures the link between two hosts and what a guest does to its memory, and predicts relocations from that."""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from collections.abc import Callable
from typing import TypeVar
from uuid import UUID

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.logger import Logger

from relocd.config.model import Compression
from relocd.convergence.shares import fair_shares
from relocd.daemon.calling import call
from relocd.daemon.connect import Peer, expect, greet
from relocd.daemon.context import Context
from relocd.daemon.detach import detach_stream
from relocd.daemon.dialogue import Dialogue
from relocd.errors import BadState, PeerUnreachable, ProtocolError, RelocdError
from relocd.model import DomainStatus
from relocd.net import gauge
from relocd.prediction import Assumptions, Prediction, Verdict, predict, prediction_object
from relocd.prediction import Measured as Sampled
from relocd.tls.stream import TlsStream
from relocd.wire.messages import MAX_MEASURE_BYTES, Measure, Measured, Problem, Ready, decode, encode

FEATURE = "measure"

Stream = socket.socket | TlsStream

#: One measurement of a link.
MEASURE = Measure(size_bytes=MAX_MEASURE_BYTES, duration_ms=1000)

#: How long an answer may take after the last byte, and how long late bytes are taken for the answer's sake.
ANSWER_S, DRAIN_S = 5.0, 2.0

#: Measurements that this host takes part in for others at one time: they take threads, and spoil each other.
MAX_AT_ONCE = 2

#: So long a prediction is put beside the relocation it was made for, in seconds.
FRESH_S = 600.0

_DROP = struct.pack("ii", 1, 0)

Fields = dict[str, object]
T = TypeVar("T")


@frozen
class Forecast:
    """The prediction object of docs/control.md, or why there is none."""

    prediction: Fields | None
    reason: str = ""


class Measurements:
    """What is being measured on this host, for itself and for peers, and what was predicted lately."""

    log = Logger()

    def __init__(self, context: Context) -> None:
        self._context = context
        self._guests: set[UUID] = set()
        self._peers: set[str] = set()
        self._sockets: set[Stream] = set()
        self._told: dict[tuple[UUID, str, int], tuple[float, Fields]] = {}

    # -- for this host's operators ---------------------------------------------------------------------------------

    async def forecast(self, domain: DomainStatus, peer: Peer) -> Forecast:
        """Measure guest and link at the same time, and predict.

        Raises BadState and DriverError if the guest cannot be measured; a link that cannot be is only told.
        """
        if domain.uuid in self._guests:
            raise BadState(
                f"Domain '{domain.name}' is being measured already.", hint="Try again in a moment."
            )
        self._guests.add(domain.uuid)
        try:
            link = Deferred.fromCoroutine(self._link(peer))
            load = await self._context.driver.measure(domain.uuid)
            bytes_s, reason = await link
        finally:
            self._guests.discard(domain.uuid)
        if not bytes_s:
            return Forecast(None, reason)
        fields = prediction_object(self._predict(Sampled.of(load, bytes_s)))
        self._remember(domain.uuid, peer, fields)
        return Forecast(fields)

    def _predict(self, sampled: Sampled) -> Prediction:
        """With the pause that is aimed for at first, or else with the longest one that is allowed."""
        config, assumed = self._context.config, self._assumptions()
        first = predict(sampled, min(config.downtime_ms, config.max_downtime_ms), assumed)
        return (
            first if first.verdict is Verdict.CONVERGES else predict(sampled, config.max_downtime_ms, assumed)
        )

    def _assumptions(self) -> Assumptions:
        """The peer's hypervisor is taken for the same as ours; which one it is, is not known yet."""
        config, facts = self._context.config, self._context.driver.facts()
        return Assumptions.of(
            compressed=config.compression is not Compression.NONE,
            by_hypervisor=facts.channels_max > 0 and config.channels != 0,
        )

    def _remember(self, uuid: UUID, peer: Peer, fields: Fields) -> None:
        now = time.monotonic()
        self._told = {key: told for key, told in self._told.items() if told[0] > now - FRESH_S}
        self._told[uuid, peer.host, peer.port] = now, fields

    def recent(self, uuid: UUID, peer: Peer) -> Fields | None:
        """What was predicted for this domain and this host in the last minutes."""
        at_s, fields = self._told.get((uuid, peer.host, peer.port), (0.0, None))
        return fields if time.monotonic() - at_s <= FRESH_S else None

    async def _link(self, peer: Peer) -> tuple[int, str]:
        """Bytes a second to a peer, within the limit of the configuration; or 0 and why they are not known."""
        try:
            arrived = await self._measure(peer)
        except RelocdError as error:
            return 0, f"The link could not be measured: {error}"
        if not arrived.size_bytes or not arrived.duration_us:
            return 0, f"The link could not be measured: next to nothing arrived at {peer.host}"
        return max(1, arrived.size_bytes * 1_000_000 // arrived.duration_us), ""

    async def _measure(self, peer: Peer) -> Measured:
        timeout_s = self._context.config.connect_timeout_s
        dialogue = await call(self._context, peer)
        try:
            theirs = await greet(dialogue, self._context.hello(), timeout_s)
            if FEATURE not in theirs.features:
                raise ProtocolError(f"{peer.host} runs {theirs.software}, which does not know how")
            dialogue.send(MEASURE)
            expect(await dialogue.receive(timeout_s), Ready, dialogue.peer)
            sock = detach_stream(dialogue)
        except BaseException:
            dialogue.close()
            raise
        config = self._context.config
        limit_bytes_s = fair_shares(config.host_bandwidth_bytes_s, {peer: config.max_bandwidth_bytes_s})[peer]
        return await self._in_thread(sock, lambda: _send(sock, peer, limit_bytes_s))

    # -- for peers -------------------------------------------------------------------------------------------------

    def serve(self, wish: Measure, dialogue: Dialogue) -> None:
        """Count what a peer sends, in a thread, and tell it; the connection is the thread's from here on."""
        peer = dialogue.peer
        if peer in self._peers or len(self._peers) >= MAX_AT_ONCE:
            busy = Problem("refused", "another measurement is under way here; try again in a moment")
            dialogue.send(busy)
            dialogue.close()
            return
        self._peers.add(peer)
        sock = detach_stream(dialogue)
        done = self._in_thread(sock, lambda: _count(sock, wish))
        done.addErrback(
            lambda failure: self.log.warn("measuring for {peer} failed: {why}", peer=peer, why=failure.value)
        )
        done.addBoth(lambda _: self._peers.discard(peer))

    # -- both ------------------------------------------------------------------------------------------------------

    def _in_thread(self, sock: Stream, work: Callable[[], T]) -> Deferred[T]:
        """Blocking work on a connection, which it closes."""
        self._sockets.add(sock)
        done: Deferred[T] = deferToThread(work)
        return done.addBoth(self._thread_ended, sock)

    def _thread_ended(self, result: T, sock: Stream) -> T:
        self._sockets.discard(sock)
        return result

    def stop(self) -> None:
        """End what is under way; its threads see the end of their connections."""
        for sock in self._sockets:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)


def _send(sock: Stream, peer: Peer, limit_bytes_s: int) -> Measured:
    with sock:
        try:
            gauge.send(sock, MEASURE.size_bytes, MEASURE.duration_ms / 1000, limit_bytes_s)
            answer = decode(gauge.read_line(sock, ANSWER_S).rstrip())
            # What the system still holds need not go any more.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _DROP)
        except ValueError as error:
            raise ProtocolError(f"{peer.host}: {error}") from error
        except OSError as error:
            raise PeerUnreachable(f"{peer.host}: {error}") from error
    return expect(answer, Measured, peer.host)


def _count(sock: Stream, wish: Measure) -> None:
    with sock:
        sock.settimeout(ANSWER_S)
        sock.sendall(encode(Ready()))
        arrived = gauge.count(sock, wish.size_bytes, wish.duration_ms / 1000)
        sock.settimeout(ANSWER_S)
        sock.sendall(encode(Measured(arrived.size_bytes, round(arrived.duration_s * 1e6))))
        gauge.drain(sock, DRAIN_S)
