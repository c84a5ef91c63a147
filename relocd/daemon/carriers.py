"""Start a carrier, give it descriptors, hear what it says (relocd.carrier.control)."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from attrs import frozen
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IReadDescriptor
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from relocd.carrier.control import (
    DATAGRAM_BYTES_MAX,
    AskDigest,
    CarrierFailed,
    Command,
    Event,
    FileSpec,
    LaneSecurity,
    Limit,
    Memory,
    Quit,
    Receive,
    Send,
    Stream,
    dump_command,
    parse_event,
)
from relocd.config import Config
from relocd.drivers.base import GuestMemory
from relocd.errors import ProtocolError, StreamError
from relocd.host.arrivals import Arrival
from relocd.model import BootFile
from relocd.pages.choice import Compression
from relocd.pages.stream_format import StreamFormat

#: The descriptor number of the control socket in the carrier.
CONTROL_FD = 3

#: A carrier that was told to quit and is still there after this many seconds is killed.
QUIT_WAIT_S = 5.0

_EXIT_CODE_FIELD = 52 - 3
"""Of proc_pid_stat(5), counted from the one behind the program's name; as waitpid(2) has it."""
_UNASKED = "it ended unasked"
_FORBIDDEN = "the kernel ended it for a system call that carriers may not make"


@frozen
class CarrierDied:
    """The process is gone without having said why: that is no echo of anything else."""

    text: str


@contextlib.contextmanager
def closing_all(ends: Sequence[socket.socket]) -> Iterator[Sequence[socket.socket]]:
    """Sockets that are the carrier's after this; our own descriptors of them are closed."""
    try:
        yield ends
    finally:
        for end in ends:
            end.close()


@implementer(IReadDescriptor)
class Carrier:
    """One carrier process. Whoever uses it hears everything it says, and CarrierDied if it dies unasked."""

    log = Logger()

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._on_event: Callable[[Event | CarrierDied], None] = lambda _: None
        self._on_end: Callable[[], None] = lambda: None
        self._closed = False
        self._pid = self._by_signal = 0
        self._socket, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.setblocking(False)

    @classmethod
    def start(cls, reactor: Any) -> Carrier:
        """Start the process. It needs some tenths of a second; what it is told meanwhile it does after that."""
        carrier = cls(reactor)
        carrier._spawn()
        return carrier

    def use(self, on_event: Callable[[Event | CarrierDied], None], on_end: Callable[[], None]) -> None:
        """From now on ``on_event`` hears it; ``on_end`` is called once, when nothing more will be heard."""
        self._on_event, self._on_end = on_event, on_end

    def _spawn(self) -> None:
        arguments = [sys.executable, "-P", "-m", "relocd.carrier", "--control", str(CONTROL_FD)]
        environment = {key: os.environ[key] for key in ("PATH", "LANG", "PYTHONPATH") if key in os.environ}
        descriptors = {0: 2, 1: 2, 2: 2, CONTROL_FD: self._theirs.fileno()}
        self._process = self._reactor.spawnProcess(
            _Watcher(self), sys.executable, arguments, env=environment, childFDs=descriptors
        )
        self._pid = self._process.pid
        self._theirs.close()
        self._reactor.addReader(self)

    # -- commands --------------------------------------------------------------------------------------------------

    def send_domain(
        self,
        lanes: Sequence[socket.socket],
        files: Sequence[BootFile],
        boot_dir: Path,
        config: Config,
        security: LaneSecurity | None = None,
        stream_format: StreamFormat = StreamFormat.QEMU,
        channels: int = 0,
    ) -> None:
        """Be the source: these lanes, encrypted with ``security``; these boot files first; such a stream, and so many
        channels beside it."""
        specs = tuple(FileSpec(file.size_bytes, file.sha256) for file in files)
        opened = [os.open(boot_dir / file.sha256, os.O_RDONLY | os.O_CLOEXEC) for file in files]
        try:
            compression = Compression(config.compression.value)
            command = Send(len(lanes), compression, specs, security, stream_format, channels)
            self._command(command, [lane.fileno() for lane in lanes] + opened)
        finally:
            for descriptor in opened:
                os.close(descriptor)

    def limit(self, bytes_per_s: int) -> None:
        """Put at most this much on the lanes from now on, 0 lifts it; only for one that was told to send."""
        self._command(Limit(bytes_per_s))

    def receive_domain(
        self,
        lanes: Sequence[socket.socket],
        arrivals: Sequence[Arrival],
        stream_bytes_max: int,
        security: LaneSecurity | None = None,
        stream_format: StreamFormat = StreamFormat.QEMU,
        channels: int = 0,
    ) -> None:
        """Be the target: these lanes, encrypted with ``security``, room for these files, at most so long a stream."""
        specs = tuple(FileSpec(arrival.file.size_bytes, arrival.file.sha256) for arrival in arrivals)
        descriptors = [lane.fileno() for lane in lanes] + [arrival.descriptor for arrival in arrivals]
        command = Receive(len(lanes), specs, stream_bytes_max, security, stream_format, channels)
        self._command(command, descriptors)

    def place_into(self, memory: GuestMemory) -> None:
        """Place pages there instead of in the stream, which is to come after this. Closes the descriptor."""
        try:
            self._command(Memory(memory.block, memory.begin, memory.size_bytes), [memory.descriptor])
        finally:
            os.close(memory.descriptor)

    def stream(self, stream: socket.socket, channels: Sequence[socket.socket] = ()) -> None:
        """Here is the hypervisor's stream, and its channels. The caller may close its own descriptors afterwards."""
        self._command(Stream(len(channels)), [end.fileno() for end in (stream, *channels)])

    def ask_digest(self) -> None:
        """CarrierDigest will follow."""
        self._command(AskDigest())

    def close(self) -> None:
        """End the process; nothing more is heard of it."""
        if self._closed:
            return
        self._send(Quit())
        self._forget()
        self._reactor.callLater(QUIT_WAIT_S, self._kill)

    def _kill(self) -> None:
        if self._process.pid is not None:
            self._process.signalProcess("KILL")

    def _command(self, command: Command, descriptors: Sequence[int] = ()) -> None:
        if self._closed or not self._send(command, descriptors):
            raise StreamError("the carrier has ended")

    def _send(self, command: Command, descriptors: Sequence[int] = ()) -> bool:
        try:
            socket.send_fds(self._socket, [dump_command(command)], list(descriptors))
        except OSError:
            return False
        return True

    # -- IReadDescriptor -------------------------------------------------------------------------------------------

    def fileno(self) -> int:
        return self._socket.fileno()

    def logPrefix(self) -> str:
        return "carrier"

    def doRead(self) -> None:
        """Take what has arrived, one datagram after the other."""
        while not self._closed:
            try:
                datagram = self._socket.recv(DATAGRAM_BYTES_MAX)
            except BlockingIOError:
                return
            except ConnectionResetError:  # killed while a command was on its way to it
                datagram = b""
            except OSError as error:
                self._died(str(error))
                return
            if not datagram:
                self._died(_FORBIDDEN if self._end_signal() == signal.SIGSYS else _UNASKED)
                return
            try:
                event = parse_event(datagram)
            except ProtocolError as error:
                self._died(str(error))
                return
            if isinstance(event, CarrierFailed):
                self._forget()  # it has said why it ends; that its socket ends too is no second reason
            self._on_event(event)

    def connectionLost(self, reason: Failure = Failure(ConnectionDone())) -> None:  # noqa: B008 - Twisted's form
        self._died(reason.getErrorMessage())

    def ended(self, by_signal: int) -> None:
        """The process is gone, by a signal if that is not 0. What it said last comes first."""
        self._by_signal = by_signal
        if not self._closed:
            self.doRead()

    def _end_signal(self) -> int:
        """The signal that has ended the process; 0 if none has, or if that cannot be seen.

        In the moment in which its socket ends the process cannot be waited for yet. But the kernel knows why already
        (proc_pid_stat(5), field 52), and whoever is told later tells after the peer has, who knows less.
        """
        try:
            fields = Path(f"/proc/{self._pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has been waited for
            return self._by_signal
        return int(fields[_EXIT_CODE_FIELD]) & 0x7F

    def _died(self, reason: str) -> None:
        if not self._closed:
            self._forget()
            self._on_event(CarrierDied(f"the carrier process failed: {reason}"))

    def _forget(self) -> None:
        self._closed = True
        self._reactor.removeReader(self)
        self._socket.close()
        self._on_end()


class _Watcher(ProcessProtocol):
    """Tells how a carrier ended."""

    log = Logger()

    def __init__(self, carrier: Carrier) -> None:
        self._carrier = carrier

    def processEnded(self, reason: Failure) -> None:
        self.log.debug("carrier ended: {reason}", reason=reason.getErrorMessage())
        self._carrier.ended(getattr(reason.value, "signal", None) or 0)
