"""Proves that a domain's bridges are one network segment on both hosts, as a part of the dialogue."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

from attrs import define, evolve, field
from twisted.internet.interfaces import IReadDescriptor
from twisted.internet.threads import deferToThread
from twisted.logger import Logger
from zope.interface import implementer

from relocd.daemon.connect import expect
from relocd.daemon.context import Context
from relocd.daemon.dialogue import Dialogue
from relocd.host import facts
from relocd.model import DomainConfig
from relocd.net import probing
from relocd.preflight.facts import SegmentFacts
from relocd.preflight.result import Check, Verdict
from relocd.preflight.segments import agreed_mode, unproven
from relocd.segment.probe import ANSWERING_S, NONCE_BYTES, WAIT_S, Kind, probe_key
from relocd.segment.proof import BridgeEnd, Crossing, prove, same_bridge
from relocd.wire.messages import Hello, Propose
from relocd.wire.network import Probe, Probing

FEATURE = "l2-probe"

_log = Logger()


def bridges_of(domain: DomainConfig) -> tuple[str, ...]:
    """The bridges that a domain's interfaces are on."""
    return tuple(sorted({vif.bridge for vif in domain.vifs}))


# -- the source ----------------------------------------------------------------------------------------------------


async def probed(context: Context, dialogue: Dialogue, theirs: Hello, proposal: Propose) -> Propose:
    """Try all bridges of the domain at once; the proposal with what was heard.

    Takes about a second if one of them is silent. A peer that does not know the feature is sent nothing.
    """
    names = bridges_of(proposal.domain)
    if not names or FEATURE not in theirs.features:
        return proposal
    here = await deferToThread(_open, names)
    try:
        heard = await _exchange(context, dialogue, here)
    finally:
        deferToThread(here.close)
    return evolve(proposal, source=evolve(proposal.source, heard=heard))


def own_checks(theirs: Hello, domain: DomainConfig, host: str) -> tuple[Check, ...]:
    """What a target that does not know the feature cannot say itself."""
    if not domain.vifs or FEATURE in theirs.features:
        return ()
    return (Check("segment", Verdict.WARN, *unproven(host)),)


async def _exchange(context: Context, dialogue: Dialogue, here: probing.Ends) -> frozenset[str]:
    ours = secrets.token_bytes(NONCE_BYTES)
    dialogue.send(Probe(ours.hex(), context.config.l2, here.ends))
    answer = await dialogue.receive(context.config.connect_timeout_s)
    theirs = expect(answer, Probing, dialogue.peer)
    key = probe_key(ours, bytes.fromhex(theirs.nonce))
    there = {end.name: end for end in theirs.bridges}
    worth = {end.name for end in here.ends if end.name in there and not same_bridge(end, there[end.name])}
    asked = {name: sock for name, sock in here.sockets.items() if name in worth}
    heard: frozenset[str] = await deferToThread(probing.ask, asked, key, WAIT_S)
    return heard


def _open(names: tuple[str, ...]) -> probing.Ends:
    return probing.open_ends(names, facts.bridges())


# -- the target ----------------------------------------------------------------------------------------------------


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
        if probing.received(self.sock, Kind.ASK, self.key, self.name):
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
        names = tuple(end.name for end in wish.bridges)
        here: probing.Ends = await deferToThread(_open, names)
        ours = secrets.token_bytes(NONCE_BYTES)
        key = probe_key(bytes.fromhex(wish.nonce), ours)
        served = _Served(wish, here, [_Answering(name, key, sock) for name, sock in here.sockets.items()])
        self._end(dialogue)
        self._served[dialogue] = served
        self._begin(served)
        dialogue.send(Probing(ours.hex(), self._context.config.l2, here.ends))

    def found(self, dialogue: Dialogue, theirs: Hello, heard: frozenset[str]) -> SegmentFacts | None:
        """What the probe of this dialogue says, of which the source has ``heard`` answers; None without a probe."""
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
