"""Two hosts with relocd, one real guest, and clients that must not notice: for the demo, the tests, the benches."""

from __future__ import annotations

import contextlib
import json
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from attrs import frozen

from tests.testbed.commands import TestbedError
from tests.testbed.daemons import PROGRAMS, RelocdHost
from tests.testbed.image import GuestImage, build_image, guest_cmdline
from tests.testbed.memcheck import MemCheck, guest_stat
from tests.testbed.network import BRIDGE, GUEST_IP, PREFIX_LENGTH, UPLINK, Host, Shape, Testbed
from tests.testbed.sessions import SshSession, TcpEchoSession
from tests.testbed.udp import UdpEchoClient

GUEST_UUID = "5f0c2c8e-7d6e-4b1c-9d57-0a3c5b7f9e10"
GUEST_MAC = "00:16:3e:5a:00:10"
BOOT_S = 90.0
SPARE_S = 0.3


@frozen
class Move:
    """One relocation as the client of the guest, the daemons and the guest itself saw it.

    ``blackout_ms`` is the gap in the client's echoes around the switchover; ``longest_gap_ms`` the longest one from
    the command to the end, wherever it lies.
    """

    outcome: dict[str, Any]
    blackout_ms: float
    longest_gap_ms: float
    command_s: float
    before: MemCheck
    after: MemCheck


class Scene:
    """A context manager. Hosts ``a`` and ``b`` run relocd; ``udp`` is a client of the guest once it is started."""

    def __init__(
        self, *, shape: Shape | None = None, settings: Mapping[str, str | int] | None = None
    ) -> None:
        self._undo = contextlib.ExitStack()
        self._shape = shape
        self._settings = dict(settings or {})

    def __enter__(self) -> Scene:
        with contextlib.ExitStack() as undo:
            self.image: GuestImage = build_image()
            self.directory = Path(undo.enter_context(tempfile.TemporaryDirectory(prefix="relocd-scene-")))
            self.network = undo.enter_context(Testbed(self._shape))
            self.a, self.b = (
                undo.enter_context(RelocdHost(host, self.directory / host.name, self._settings))
                for host in self.network.hosts
            )
            self._undo = undo.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._undo.close()

    @property
    def client(self) -> Host:
        """The host whose users talk to the guest."""
        return self.network.client

    def domain_file(
        self, name: str = "guest", *, memory_mib: int = 192, more_ips: str = "", **guest: Any
    ) -> Path:
        """Write a domain file; ``guest`` are the settings of ``guest_cmdline``.

        ``more_ips`` are addresses that only the domain file knows of.
        """
        extra = guest_cmdline(f"{GUEST_IP}/{PREFIX_LENGTH}", **guest)
        path = self.directory / f"{name}.cfg"
        path.write_text(
            f'name = "{name}"\nuuid = "{GUEST_UUID}"\nmemory = {memory_mib}\nvcpus = 1\n'
            f'kernel = "{self.image.kernel}"\nramdisk = "{self.image.ramdisk}"\nextra = "{extra}"\n'
            f'vif = ["mac={GUEST_MAC},bridge={BRIDGE},ip={GUEST_IP} {more_ips}"]\n'
        )
        return path

    def start_guest(self, host: RelocdHost, *, memory_mib: int = 192, **guest: Any) -> MemCheck:
        """Create the guest and wait until its memory is filled and being verified.

        The client forgets where a former guest was: a new one is silent until it is asked for by broadcast.
        """
        self.client.run(["ip", "neigh", "flush", "dev", UPLINK])
        host.relocctl("create", self.domain_file(memory_mib=memory_mib, **guest))
        return self.wait_guest(lambda stat: stat.full and stat.sweeps >= 1)

    def wait_guest(self, ready: Any, timeout_s: float = BOOT_S) -> MemCheck:
        """Ask the guest until ``ready`` of its counters is true. Raises TestbedError."""
        deadline = time.monotonic() + timeout_s
        while True:
            stat = self.stat(max(1.0, deadline - time.monotonic()))
            if ready(stat):
                return stat
            if time.monotonic() > deadline:
                raise TestbedError(f"the guest did not get there: {stat}")
            time.sleep(0.1)

    def stat(self, timeout_s: float = 30.0) -> MemCheck:
        """The guest's counters, asked over the network."""
        return guest_stat(self.client.netns, GUEST_IP, timeout_s=timeout_s)

    def udp(self, interval_ms: float = 1.0) -> UdpEchoClient:
        """A client that sees blackouts."""
        return UdpEchoClient(self.client, GUEST_IP, interval_ms=interval_ms)

    def tcp(self) -> TcpEchoSession:
        """A connection that must survive."""
        return TcpEchoSession(self.client.netns, GUEST_IP)

    def ssh(self) -> SshSession:
        """A login that must survive."""
        return SshSession(self.client, self.image, GUEST_IP)

    def move(self, source: RelocdHost, target: RelocdHost, udp: UdpEchoClient, *, live: bool = True) -> Move:
        """Relocate the guest and measure; raises TestbedError if it does not complete."""
        before = self.stat()
        began_s, began_unix_s = time.monotonic(), time.time()
        reply = source.relocctl("migrate", *(["--live"] if live else []), "guest", target.host.address)
        returned_s = time.monotonic()
        udp.wait_echo_after(returned_s)
        switchover_s = began_s
        if live:
            (record,) = source.ask("history", relocation=reply.result["relocation"])["relocations"]
            switchover_s += max(0.0, _switchover_unix_s(record) - began_unix_s)
        blackout_ms = udp.blackout_ms(switchover_s)
        longest_gap_ms = udp.blackout_ms(began_s)
        after = self.wait_guest(lambda stat: stat.verified > before.verified)
        return Move(reply.result, blackout_ms, longest_gap_ms, returned_s - began_s, before, after)

    def begin_move(self, source: RelocdHost, target: RelocdHost, *, live: bool = True) -> Moving:
        """Start a relocation and return while it runs."""
        words = ["migrate", *(["--live"] if live else []), "guest", target.host.address, "--json"]
        argv: list[str | Path] = [PROGRAMS / "relocctl", "--socket", source.control_socket, *words]
        return Moving(source.host.popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE))


def _switchover_unix_s(record: Mapping[str, Any]) -> float:
    """When the domain was paused, by the timeline of its relocation."""
    paused = next(moment for moment in record["timeline"] if moment.get("phase") == "switchover")
    return float(paused["at_s"]) - SPARE_S


class Moving:
    """A relocation that is under way, as ``relocctl migrate --json`` tells it."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self.stderr = ""

    def wait_phase(self, phase: str) -> dict[str, Any]:
        """Read on until ``phase`` has begun. Raises TestbedError if the relocation ends instead."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            message: dict[str, Any] = json.loads(line)
            if message.get("phase") == phase:
                return message
            if "outcome" in message:
                raise TestbedError(f"the relocation ended before {phase}: {message}")
        raise TestbedError(f"relocctl ended before {phase}")

    def finish(self, timeout_s: float = 90) -> tuple[int, dict[str, Any]]:
        """Wait for the end: exit code and the outcome object; ``stderr`` is what a person would have read."""
        out, said = self._process.communicate(timeout=timeout_s)
        self.stderr = said.decode()
        lines = out.decode().splitlines()
        return self._process.returncode, json.loads(lines[-1]) if lines else {}
