"""A domain has arrived: the network is told, and its first frame is waited for."""

from __future__ import annotations

import contextlib
import socket
import time
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReadDescriptor
from twisted.internet.threads import deferToThread
from twisted.logger import Logger
from zope.interface import implementer

from relocd.daemon.context import Context
from relocd.model import DomainConfig, DomainState
from relocd.net.packet import open_packets, packet_trouble
from relocd.net.sniffing import first_frame, open_watch
from relocd.segment.announce import SCHEDULE_S, announcements, mac_bytes
from relocd.wire.messages import Resumed

#: How long the source's ``resumed`` waits for the first frame. A guest with open connections sends within some tens
#: of milliseconds; one that is silent costs the source's clean-up so much time, and the domain none.
FIRST_FRAME_WAIT_S = 0.5


@implementer(IReadDescriptor)
class Welcome:
    """What is done for one domain that comes to run here. Nothing of it can fail or delay the relocation.

    ``waits``: the source knows how to count the wait for the first frame.
    """

    log = Logger()

    def __init__(self, context: Context, domain: DomainConfig) -> None:
        self.waits = False
        self._context = context
        self._domain = domain
        self._watch: socket.socket | None = None
        self._senders: dict[str, socket.socket] = {}
        self._ran_at_s = 0.0
        self._heard_at_s: float | None = None
        self._heard: Deferred[None] = Deferred()

    def watch(self) -> None:
        """The domain is about to be resumed: see its first frame."""
        if not self._domain.vifs or self._watch is not None:
            return
        try:
            self._watch = open_watch([mac_bytes(vif.mac) for vif in self._domain.vifs])
        except OSError as error:
            self.log.warn(
                "domain {name}: the first frame will not be seen: {why}",
                name=self._domain.name,
                why=packet_trouble(error),
            )
        else:
            self._context.reactor.addReader(self)

    def begin(self) -> None:
        """The domain runs (or is here, paused): announce it, now and again."""
        self._ran_at_s = time.time()
        if self._domain.vifs:
            self._open_senders()
            self._announce(0)

    def call_off(self) -> None:
        """The domain does not come to run here. Nothing happens once it has."""
        if not self._ran_at_s:
            self._stop_watching()

    async def told(self, *, connected: bool) -> Resumed:
        """What the source is told; if it is there and can count, the first frame is given a moment."""
        if self._watch is not None and self.waits and connected and self._heard_at_s is None and self._runs():
            reactor = self._context.reactor
            timer = reactor.callLater(FIRST_FRAME_WAIT_S, self._fire)
            await self._heard
            if timer.active():
                timer.cancel()
        if not self._ran_at_s or not self._domain.vifs:
            return Resumed()
        now = time.time()
        heard_us = None if self._heard_at_s is None else _microseconds(now - self._heard_at_s)
        return Resumed(max(1, _microseconds(now - self._ran_at_s)), heard_us)

    @property
    def first_frame_ms(self) -> float | None:
        """From the resumed domain to its first frame; None if none was seen. Negative if that was faster than us."""
        if self._heard_at_s is None:
            return None
        return round((self._heard_at_s - self._ran_at_s) * 1000, 1)

    # -- announcements ---------------------------------------------------------------------------------------------

    def _open_senders(self) -> None:
        for bridge in {announcement.bridge for announcement in announcements(self._domain)}:
            try:
                self._senders[bridge] = open_packets(bridge, 0)
            except OSError as error:
                self.log.warn(
                    "domain {name} is not announced on {bridge}: {why}",
                    name=self._domain.name,
                    bridge=bridge,
                    why=packet_trouble(error),
                )

    def _announce(self, step: int) -> None:
        """One of the times of the schedule. A domain that has left is not called back."""
        if not self._is_ours():
            self._end()
            return
        for announcement in announcements(self._domain):
            sender = self._senders.get(announcement.bridge)
            if sender is not None:
                with contextlib.suppress(OSError):  # of a bridge that is down; there are more times
                    sender.send(announcement.frame)
        if step + 1 == len(SCHEDULE_S):
            self._end()
        else:
            pause_s = SCHEDULE_S[step + 1] - SCHEDULE_S[step]
            self._context.reactor.callLater(pause_s, self._announce, step + 1)

    def _is_ours(self) -> bool:
        status = self._context.driver.get(self._domain.uuid)
        return status is not None and status.state in (DomainState.RUNNING, DomainState.PAUSED)

    def _runs(self) -> bool:
        status = self._context.driver.get(self._domain.uuid)
        return status is not None and status.state is DomainState.RUNNING

    def _end(self) -> None:
        if self._heard_at_s is None and self._runs():
            self.log.info("domain {name}: no frame of it was seen yet", name=self._domain.name)
        self._stop_watching()
        for sender in self._senders.values():
            deferToThread(sender.close)
        self._senders = {}

    # -- the first frame -------------------------------------------------------------------------------------------

    def fileno(self) -> int:
        return -1 if self._watch is None else self._watch.fileno()

    def doRead(self) -> None:
        """Frames of the guest are there."""
        at_s = None if self._watch is None else first_frame(self._watch)
        if at_s is None:
            return
        self._heard_at_s = at_s
        self._stop_watching()
        self._fire()

    def connectionLost(self, reason: Any) -> None:
        """Part of the interface; a watch of all devices is not lost."""

    def logPrefix(self) -> str:
        return "announcement"

    def _fire(self) -> None:
        if not self._heard.called:
            self._heard.callback(None)

    def _stop_watching(self) -> None:
        if self._watch is not None:
            self._context.reactor.removeReader(self)
            deferToThread(self._watch.close)
            self._watch = None


def _microseconds(seconds: float) -> int:
    return max(0, round(seconds * 1e6))
