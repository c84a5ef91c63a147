"""The carrier process: started by the daemon with a control socket, ends with it.

python -m relocd.carrier --control 3 --uid 65534 --gid 65534
"""

from __future__ import annotations

import argparse
import socket
import sys
import threading
import traceback
from collections.abc import Sequence
from typing import Final, NoReturn, assert_never

from relocd.carrier import control
from relocd.carrier.control import DATAGRAM_BYTES_MAX, DESCRIPTORS_MAX, Command, LaneSecurity
from relocd.carrier.process import drop_privileges, tune
from relocd.carrier.report import Reporter
from relocd.carrier.seal import seal
from relocd.carrier.side import Side
from relocd.carrier.source import Source
from relocd.carrier.target import Target
from relocd.carrier.tls import Armour
from relocd.errors import ProtocolError, RelocdError

NOBODY: Final = 65534


class Carrier:
    """Obeys the daemon's commands. Lives in the main thread; the work is done by the threads of a side."""

    def __init__(self, sock: socket.socket, reporter: Reporter) -> None:
        self._control = sock
        self._reporter = reporter
        self._side: Source | Target | None = None

    def run(self) -> NoReturn:
        """Obey until ``quit`` or until the daemon is gone, which ends a relocation that is under way."""
        self._reporter.emit(control.CarrierReady())
        while (received := self._receive()) is not None:
            command, descriptors = received
            if isinstance(command, control.Quit):
                break
            self._obey(command, descriptors)
        self._reporter.quit(complete=self._side is None or self._side.ended)

    def _receive(self) -> tuple[Command, list[int]] | None:
        """The next command; None if the daemon is gone."""
        try:
            datagram, descriptors, flags, _ = socket.recv_fds(
                self._control, DATAGRAM_BYTES_MAX + 1, DESCRIPTORS_MAX, socket.MSG_CMSG_CLOEXEC
            )
        except ConnectionResetError:
            return None
        if not datagram:
            return None
        if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
            raise ProtocolError("a control message is too long or brings too many descriptors")
        command = control.parse_command(datagram)
        if len(descriptors) != command.descriptors:
            raise ProtocolError(f"{command} brings {len(descriptors)} descriptors, not {command.descriptors}")
        return command, descriptors

    def _obey(self, command: Command, descriptors: Sequence[int]) -> None:
        match command:
            case control.Send():
                armour = self._prepare(command.security, server_side=False)
                self._begin(Source(self._reporter, command, *_split(descriptors, command.lanes), armour))
            case control.Receive():
                armour = self._prepare(command.security, server_side=True)
                self._begin(Target(self._reporter, command, *_split(descriptors, command.lanes), armour))
            case control.Memory():
                self._place(command, descriptors[0])
            case control.Stream():
                main, *channels = (socket.socket(fileno=descriptor) for descriptor in descriptors)
                self._begun().give_stream(main, channels)
            case control.AskDigest():
                self._reporter.emit(control.CarrierDigest(self._begun().totals()))
            case control.Limit(bytes_per_s=bytes_per_s):
                self._limit(bytes_per_s)
            case control.Quit():
                pass
            case _:
                assert_never(command)

    def _prepare(self, security: LaneSecurity | None, *, server_side: bool) -> Armour | None:
        """What encrypts the lanes, if anything does; from here on the process is sealed, and may hear the peer."""
        if self._side is not None:
            raise ProtocolError("a carrier carries one relocation, not two")
        armour = Armour(security, server_side=server_side) if security is not None else None
        seal()
        return armour

    def _begin(self, side: Source | Target) -> None:
        self._side = side
        side.start()

    def _begun(self) -> Side:
        if self._side is None:
            raise ProtocolError("a carrier must be told to send or to receive first")
        return self._side

    def _place(self, command: control.Memory, descriptor: int) -> None:
        if not isinstance(self._side, Target):
            raise ProtocolError("only a carrier that receives can place pages")
        self._side.place_into(command, descriptor)

    def _limit(self, bytes_per_s: int) -> None:
        if not isinstance(self._side, Source):
            raise ProtocolError("only a carrier that sends can be limited")
        self._side.sender.throttle.limit(bytes_per_s)


def main(arguments: Sequence[str]) -> NoReturn:
    """Run a carrier; never returns."""
    options = _parse(arguments)
    tune()
    drop_privileges(options.control, options.uid, options.gid)
    sock = socket.socket(fileno=options.control)
    reporter = Reporter(sock)
    threading.excepthook = lambda args: _fail(reporter, args.exc_value)
    sys.excepthook = lambda _, error, __: _fail(reporter, error)
    Carrier(sock, reporter).run()


def _split(descriptors: Sequence[int], lanes: int) -> tuple[list[socket.socket], list[int]]:
    """Lanes come first, then files."""
    return [socket.socket(fileno=fd) for fd in descriptors[:lanes]], list(descriptors[lanes:])


def _fail(reporter: Reporter, error: BaseException | None) -> NoReturn:
    """Whatever a thread did not expect ends the process with a reason."""
    if not isinstance(error, RelocdError):
        traceback.print_exception(error, file=sys.stderr)
        error = RelocdError(f"the carrier failed: {error!r}", hint="Its standard error has the details.")
    reporter.fail(error)


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="relocd.carrier", description="Moves one domain's page stream.")
    parser.add_argument("--control", type=int, default=3, help="descriptor of the control socket")
    parser.add_argument("--uid", type=int, default=NOBODY, help="user to become if started by root")
    parser.add_argument("--gid", type=int, default=NOBODY, help="group to become if started by root")
    return parser.parse_args(arguments)
