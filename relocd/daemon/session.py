"""What a peer's connection turns out to be: a person, an old xm, a dialogue, a lane, a measurement, or a question."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from relocd import __version__
from relocd.daemon.detach import detach
from relocd.daemon.dialogue import Dialogue
from relocd.daemon.relocations import Relocations
from relocd.daemon.trust import PLAIN_REFUSED
from relocd.errors import ProtocolError, RelocdError
from relocd.wire.messages import (
    Abort,
    ClassicReceive,
    Hello,
    Help,
    Inquire,
    Lane,
    Measure,
    Message,
    Problem,
    Propose,
    Ready,
    agree,
    encode,
    known_heads,
)
from relocd.wire.network import MakeTunnel, Probe, TunnelUse

#: What takes some time to answer.
Request = Propose | Inquire | Probe | MakeTunnel | TunnelUse

_HELP = (
    f"(ok (help relocd {__version__} speaks one S-expression a line: {' '.join(known_heads())}; "
    "see docs/protocol.md; to move a domain, use relocctl on the host it runs on))\n"
)
_CLASSIC = Problem(
    "protocol",
    "this port is served by relocd, which does not take xend's classic stream; install relocd on the source host "
    "and use its xm or relocctl",
)


class Session:
    """The serving side of one connection, until a relocation takes it over."""

    log = Logger()

    def __init__(self, dialogue: Dialogue, relocations: Relocations) -> None:
        self._dialogue = dialogue
        self._relocations = relocations
        self._peer: Hello | None = None
        self._working = False
        dialogue.listen(self._handle, self._lost)

    def _handle(self, message: Message) -> None:
        match message:
            case Help():
                self._dialogue.send_bytes(_HELP.encode())
            case ClassicReceive():
                self._dialogue.send(_CLASSIC)
                self._dialogue.close()
            case Hello() if self._peer is None:
                self._hello(message)
            case Lane():
                self._lane(message)
            case Measure() if self._peer is not None:
                self._measure(message)
            case Propose() | Inquire() | Probe() | MakeTunnel() | TunnelUse() if self._peer is not None:
                self._work(message, self._peer)
            case Propose() | Inquire() | Probe() | MakeTunnel() | TunnelUse() | Measure():
                self._dialogue.breach(ProtocolError("say hello first"))
            case Abort():
                self._dialogue.close()
            case Problem():
                self.log.warn("{peer} reports: {text}", peer=self._dialogue.peer, text=message.text)
                self._dialogue.close()
            case _:
                self._dialogue.breach(ProtocolError("that message has no meaning at this point"))

    def _hello(self, hello: Hello) -> None:
        if self._dialogue.channel is None and self._relocations.context.trust.required:
            self._dialogue.refuse(PLAIN_REFUSED)
            return
        ours = self._relocations.hello()
        agree(ours, hello)
        self._peer = hello
        self._dialogue.introduced()
        self._dialogue.set_deadline(self._relocations.context.config.idle_timeout_s)
        self._dialogue.send(ours)

    def _lane(self, lane: Lane) -> None:
        """Hand the connection to the relocation it names. Nothing may follow the line before our answer."""
        taker = self._relocations.lane_taker(lane, self._dialogue.peer)
        if taker is None or self._dialogue.pending_bytes or self._dialogue.channel is not None:
            self._dialogue.breach(ProtocolError("no relocation waits for such a lane"))
            return
        self._dialogue.listen(_ignore, _ignore)
        sock = detach(self._dialogue.tcp)
        try:
            sock.sendall(encode(Ready()))  # a few bytes into an empty buffer: this does not wait
        except OSError as error:
            self.log.warn("a lane of {id} broke at once: {error}", id=lane.relocation, error=error)
            sock.close()
        else:
            taker(sock)

    def _measure(self, wish: Measure) -> None:
        """Hand the connection to a measurement. Nothing may follow the line before our answer."""
        if self._dialogue.pending_bytes:
            self._dialogue.breach(ProtocolError("bytes to be measured came before they were asked for"))
            return
        self._dialogue.listen(_ignore, _ignore)
        self._relocations.measurements.serve(wish, self._dialogue)

    def _work(self, message: Request, peer: Hello) -> None:
        # A second one would end up in the same dialogue, or have this host check without end.
        if self._working:
            raise ProtocolError("one question at a time: wait for the answer")
        self._working = True

        async def run() -> None:
            try:
                await self._serve(message, peer)
            except ProtocolError as error:
                self._dialogue.breach(error)
            except RelocdError as error:
                self._dialogue.send(Problem(error.code, f"{error} {error.hint}".strip()))
                self._dialogue.close()
            finally:
                self._working = False

        Deferred.fromCoroutine(run()).addErrback(self._unexpected)

    async def _serve(self, message: Request, peer: Hello) -> None:
        match message:
            case Propose():
                await self._relocations.propose(message, peer, self._dialogue)
            case Inquire():
                await self._relocations.inquire(message, peer, self._dialogue)
            case Probe():
                await self._relocations.segments.serve(message, self._dialogue)
            case MakeTunnel():
                await self._relocations.context.tunnels.serve(message, peer, self._dialogue)
            case TunnelUse():
                self._relocations.context.tunnels.tell_use(message, self._dialogue)

    def _unexpected(self, failure: object) -> None:
        self.log.error("while serving {peer}: {failure}", peer=self._dialogue.peer, failure=failure)
        self._dialogue.send(Problem("internal", "an internal error; see the log of this host"))
        self._dialogue.close()

    def _lost(self, reason: str) -> None:
        self.log.debug("{reason}", reason=reason)


def _ignore(_: object) -> None:
    """Nobody listens any more."""
