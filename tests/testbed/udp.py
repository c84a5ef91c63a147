"""What a client of a guest sees of a relocation: UDP echoes a millisecond apart, and the gap in them."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from . import udp_probe
from .commands import TestbedError
from .network import Host
from .processes import stop_child

ECHO_PORT = 7


@frozen
class Gap:
    """A time without echoes, in seconds of ``time.monotonic()``. ``open``: no echo has ended it yet."""

    start_s: float
    end_s: float
    open: bool = False

    @property
    def ms(self) -> float:
        """How long it is."""
        return (self.end_s - self.start_s) * 1000


@frozen
class EchoStats:
    """Counts of a probe. ``lost`` were never answered although a later one was."""

    sent: int
    received: int
    lost: int
    longest: Gap


class UdpEchoClient:
    """A steady stream of echo requests from inside a namespace; a context manager.

    A process of its own sends them, in real-time order; results can be read at any time, also after the end.
    """

    def __init__(self, host: Host, ip: str, *, port: int = ECHO_PORT, interval_ms: float = 1.0) -> None:
        self._host = host
        self._target = [ip, str(port), str(round(interval_ms * 1000))]
        self._process: subprocess.Popen[bytes] | None = None
        self._notes = tempfile.NamedTemporaryFile(prefix="relocd-echo-")  # noqa: SIM115 (read until we are gone)
        self._notes.truncate(udp_probe.FILE_BYTES)
        self._start_s = time.monotonic()
        self._end_s: float | None = None

    @property
    def notes(self) -> Path:
        """The probe's file; ``udp_probe`` describes it."""
        return Path(self._notes.name)

    def __enter__(self) -> UdpEchoClient:
        argv = [sys.executable, "-S", udp_probe.__file__, *self._target, self._notes.name]
        self._start_s = time.monotonic()
        self._process = self._host.popen(argv, stdout=subprocess.PIPE)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def wait_answered(self) -> None:
        """Return once the first echo came. Raises TestbedError if the probe ended instead."""
        if not self._process or not self._process.stdout or not self._process.stdout.readline():
            raise TestbedError("the UDP probe ended before it had an answer")

    def wait_echo_after(self, moment_s: float, timeout_s: float = 30) -> float:
        """Return when the first echo later than ``moment_s`` came. Raises TestbedError."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            later = self.echoes_s()
            later = later[later > moment_s]
            if len(later):
                return float(later[0])
            time.sleep(0.005)
        raise TestbedError(f"no echo within {timeout_s} s")

    def stop(self) -> None:
        """Stop sending. Results stay."""
        if self._process and self._end_s is None:
            stop_child(self._process)
            if self._process.stdout:
                self._process.stdout.close()
            self._end_s = time.monotonic()

    def blackout_ms(self, since_s: float | None = None, until_s: float | None = None) -> float:
        """The longest time from one echo to the next in a stretch of ``time.monotonic()``; see ``longest_gap``."""
        return self.longest_gap(since_s, until_s).ms

    def longest_gap(self, since_s: float | None = None, until_s: float | None = None) -> Gap:
        """The longest gap that reaches into the stretch (default: all of it): last echo before to first after.

        With no echo after it, it ends now (or when the probe was stopped) and is ``open``.
        """
        since = self._start_s if since_s is None else since_s
        end = self._end_s or time.monotonic()
        until = end if until_s is None else until_s
        echoes = self.echoes_s()
        first = max(0, int(np.searchsorted(echoes, since)) - 1)
        last = int(np.searchsorted(echoes, until)) + 1
        inside = echoes[first:last]
        if not len(inside):
            return Gap(self._start_s, end, open=True)
        gap = Gap(float(inside[0]), float(inside[0]))
        if len(inside) > 1:
            widest = int(np.argmax(np.diff(inside)))
            gap = Gap(float(inside[widest]), float(inside[widest + 1]))
        if last > len(echoes) and end - inside[-1] > gap.end_s - gap.start_s:
            gap = Gap(float(inside[-1]), end, open=True)
        return gap

    def stats(self) -> EchoStats:
        """Counts and the longest gap of the whole run."""
        records = self._records()
        answered = np.flatnonzero(records[:, 1])
        received = len(answered)
        last = int(answered[-1]) if received else -1
        return EchoStats(len(records), received, last + 1 - received, self.longest_gap())

    def round_trips_ms(self) -> NDArray[np.float64]:
        """Round trip of every echo, in the order of sending."""
        records = self._records()
        answered = records[records[:, 1] > 0]
        return (answered[:, 1] - answered[:, 0]) / 1e6

    def echoes_s(self) -> NDArray[np.float64]:
        """When echoes came, in seconds of ``time.monotonic()``, in order of time."""
        received = self._records()[:, 1]
        return np.sort(received[received > 0]) / 1e9

    def _records(self) -> NDArray[np.uint64]:
        count = int(np.fromfile(self.notes, np.uint64, 1)[0])
        return np.fromfile(self.notes, np.uint64, count * 2, offset=udp_probe.HEADER_BYTES).reshape(-1, 2)
