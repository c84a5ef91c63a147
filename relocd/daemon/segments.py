"""The target's half of a probe: answers the frames of a source, and says what they prove."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

from attrs import define, field
from twisted.internet.interfaces import IReadDescriptor
from twisted.internet.threads import deferToThread
from twisted.logger import Logger
from zope.interface import implementer

from relocd.daemon.context import Context
from relocd.daemon.dialogue import Dialogue
from relocd.daemon.probing import open_bridges
from relocd.net import probing
from relocd.preflight.facts import SegmentFacts
from relocd.preflight.segments import agreed_mode
from relocd.segment.probe import ANSWERING_S, NONCE_BYTES, Kind, probe_key
from relocd.segment.proof import BridgeEnd, Crossing, prove
from relocd.wire.messages import Hello, Intent, Propose
from relocd.wire.network import Probe, Probing

FEATURE = "l2-probe"

_log = Logger()


@implementer(IReadDescriptor)
@define(eq=False)
class _Answering:
    """Answers the questions that come in on one bridge."""

    name: str
    key: bytes
    sock: Any
    seen: bool = False

    def fileno(self) -> int:
        return int(self.sock.fileno())

    def doRead(self) -> None:
        """Questions are there, or other frames."""
        if Kind.ASK in probing.received(self.sock, self.key, self.name):
            self.seen = True
            probing.answer(self.sock, self.key, self.name)

    def connectionLost(self, reason: object) -> None:
        """The device is gone; nothing more will be seen."""

    def logPrefix(self) -> str:
        return "probes"


@define(eq=False)
class _Served:
    """A probe that this host answers, or has answered, for one dialogue."""

    asked: Probe
    here: probing.Ends
    answering: list[_Answering] = field(factory=list)
    stop: Callable[[], None] = lambda: None


class Segments:
    """The probes that this host answers for its peers."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._served: WeakKeyDictionary[Dialogue, _Served] = WeakKeyDictionary()

    async def serve(self, wish: Probe, dialogue: Dialogue) -> None:
        """Answer a peer's probe frames for a few seconds, on the bridges it names."""
        self._end(dialogue)
        self._context.tunnels.touch(dialogue.peer)
        names = tuple(end.name for end in wish.bridges)
        here: probing.Ends = await deferToThread(open_bridges, names)
        ours = secrets.token_bytes(NONCE_BYTES)
        key = probe_key(bytes.fromhex(wish.nonce), ours)
        served = _Served(wish, here, [_Answering(name, key, sock) for name, sock in here.sockets.items()])
        self._end(dialogue)
        self._served[dialogue] = served
        self._begin(served)
        dialogue.send(Probing(ours.hex(), self._context.config.l2, here.ends))

    def found(self, dialogue: Dialogue, theirs: Hello, proposal: Propose) -> SegmentFacts | None:
        """What the probe of this dialogue says, together with what the source has heard; None without a probe."""
        heard = proposal.source.heard
        served = self._served.get(dialogue)
        if served is None:
            return None
        self._end(dialogue)
        seen = {answering.name for answering in served.answering if answering.seen}
        there = {end.name: end for end in served.asked.bridges}
        return SegmentFacts(
            mode=agreed_mode(served.asked.mode, self._context.config.l2),
            source_host=theirs.host,
            source_address=dialogue.peer,
            target_address=dialogue.address,
            asks_only=proposal.intent is Intent.CHECK,
            tunnel_trouble=proposal.source.tunnel_trouble,
            crossings={end.name: _crossing(there[end.name], end, seen, heard) for end in served.here.ends},
        )

    def _begin(self, served: _Served) -> None:
        reactor = self._context.reactor
        for answering in served.answering:
            reactor.addReader(answering)
        timer = reactor.callLater(ANSWERING_S, lambda: served.stop())

        def stop() -> None:
            served.stop = lambda: None
            if timer.active():
                timer.cancel()
            for answering in served.answering:
                reactor.removeReader(answering)
            deferToThread(served.here.close)

        served.stop = stop

    def _end(self, dialogue: Dialogue) -> None:
        served = self._served.get(dialogue)
        if served is not None:
            served.stop()


def _crossing(source: BridgeEnd, target: BridgeEnd, seen: set[str], heard: frozenset[str]) -> Crossing:
    name = target.name
    return Crossing(source, target, prove(source, target, seen=name in seen, heard=name in heard))
