"""The peer that ``make bench`` compares with: a guest moved by QEMU's own migration."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any

from attrs import field, frozen

from tests.bench.echoes import ECHO_INTERVAL_MS, see, silences
from tests.bench.figures import Figures, Load
from tests.bench.usage import Usage
from tests.bench.wire import Wire
from tests.scene import Scene
from tests.testbed.guests import Guest
from tests.testbed.memcheck import MemCheck, guest_stat, wait_filled
from tests.testbed.network import Host
from tests.testbed.rawqemu import RawQemu
from tests.testbed.udp import UdpEchoClient

FILL_S = 300.0
ANSWER_S = 90.0

#: What every method starts from, so that nothing stays from the last move: QEMU's defaults, without its limit of
#: bandwidth, and with more channels than its 2, where they count.
_PARAMETERS: Mapping[str, int | str] = {
    "max-bandwidth": 0,
    "downtime-limit": 300,
    "multifd-channels": 4,
    "multifd-compression": "none",
}


@frozen
class Method:
    """A way to migrate. It may never end: ``give_up_s`` is how long it is given for a guest of up to 2 GiB."""

    name: str
    give_up_s: float = 30.0
    capabilities: tuple[str, ...] = ()
    parameters: Mapping[str, int | str] = field(factory=dict)


METHODS: Mapping[str, Method] = {
    "tcp": Method("qemu tcp"),
    "tcp-20ms": Method("qemu tcp 20 ms", parameters={"downtime-limit": 20}),
    "multifd": Method("multifd", capabilities=("multifd",)),
    "multifd-zstd": Method(
        "multifd zstd",
        give_up_s=90.0,  # with QEMU's default of 2 channels it took up to 40 s at 1 Gbit/s
        capabilities=("multifd",),
        parameters={"multifd-compression": "zstd"},
    ),
}


class Peer:
    """A guest under plain QEMU, moved by its own migration, by one method or the other. A context manager."""

    def __init__(self, scene: Scene, load: Load) -> None:
        self._scene, self._load = scene, load
        self._guest = Guest("peer", 20, load.memory_mib, load.settings())
        self._here, self._there = scene.network.hosts
        self._taps = (f"peer{number}" for number in itertools.count())
        self._qemu = self._start(self._here, incoming=False)

    def __enter__(self) -> Peer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._qemu.__exit__(None, None, None)

    def wait_filled(self) -> MemCheck:
        """Wait until the guest's memory is as the load says. Raises TestbedError."""
        return wait_filled(self._scene.client.netns, self._guest.ip, timeout_s=FILL_S)

    def stat(self) -> MemCheck:
        """The guest's counters."""
        return guest_stat(self._scene.client.netns, self._guest.ip, timeout_s=ANSWER_S)

    def pause(self) -> None:
        """Have the guest keep still."""
        self._qemu.qmp.command("stop")

    def unpause(self) -> None:
        """Let it go on."""
        self._qemu.qmp.command("cont")

    def move(self, method: Method) -> Figures:
        """One migration to the other host; the guest stays where it is if that does not end."""
        with UdpEchoClient(self._scene.client, self._guest.ip, interval_ms=ECHO_INTERVAL_MS) as udp:
            udp.wait_answered()
            left = target = self._start(self._there, incoming=True)
            try:
                figures = self._migrate(method, target, udp)
                if figures.completed:
                    left, self._qemu = self._qemu, target
                    self._here, self._there = self._there, self._here
            finally:
                left.__exit__(None, None, None)
        return figures

    def _migrate(self, method: Method, target: RawQemu, udp: UdpEchoClient) -> Figures:
        remaining: list[tuple[float, int]] = []
        here = self._qemu.process.pid
        with Usage([[here], [target.process.pid]]) as usage, Wire(here) as wire:
            began_s = time.monotonic()
            result = self._qemu.migrate_tcp(
                target,
                self._there.address,
                capabilities=method.capabilities,
                parameters={**_PARAMETERS, **method.parameters},
                timeout_s=method.give_up_s * max(1.0, self._load.memory_mib / 2048),
                watch=lambda answer: remaining.extend(_left(answer, time.monotonic() - began_s)),
            )
            ended_s = time.monotonic()
        switchover_s = ended_s - result.downtime_ms / 1000
        seen = see(udp, began_s, switchover_s, ended_s) if result.completed else None
        return Figures(
            completed=result.completed,
            memory_mib=self._load.memory_mib,
            total_s=ended_s - began_s,
            wire_bytes=wire.total_bytes,
            sent_bytes=result.sent_bytes,
            rounds=result.rounds,
            cpu_s=usage.cpu_s,
            load=usage.load,
            downtime_ms=result.downtime_ms if result.completed else None,
            blackout_ms=seen.blackout_ms if seen else None,
            gap_ms=seen.gap_ms if seen else None,
            cpu_by_name=usage.cpu_by_name(),
            wire=wire.since(began_s),
            remaining=remaining,
            silences=silences(udp.echoes_s(), began_s, ended_s),
        )

    def _start(self, host: Host, *, incoming: bool) -> RawQemu:
        qemu = RawQemu(
            self._scene.image,
            self._load.memory_mib,
            self._guest.cmdline,
            host=host,
            tap=next(self._taps),
            incoming=incoming,
            mac=self._guest.mac,
            pad=False,
        )
        return qemu.__enter__()


def _left(answer: Mapping[str, Any], at_s: float) -> Iterator[tuple[float, int]]:
    """Of an answer of query-migrate, which has no counters at the very beginning."""
    if ram := answer.get("ram"):
        yield at_s, ram["remaining"]
