"""relocd's side of ``make bench``: a guest that its daemons move."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

from attrs import frozen

from tests.bench.echoes import ECHO_INTERVAL_MS, Seen, see, silences
from tests.bench.figures import Curve, Figures, Load
from tests.bench.usage import Usage
from tests.bench.wire import Wire
from tests.scene import Scene, since_switchover_s
from tests.testbed.daemons import RelocdHost, Reply
from tests.testbed.guests import Guest
from tests.testbed.memcheck import MemCheck, guest_stat, wait_filled
from tests.testbed.udp import UdpEchoClient

FILL_S = 300.0
ANSWER_S = 90.0


@frozen
class Relocated:
    """One relocation: relocctl's outcome object, when it began (``time.monotonic()``), how long the command took
    without removing the source's copy, what a client saw, and the curves of figures."""

    outcome: Mapping[str, Any]
    began_s: float
    total_s: float
    seen: Seen
    wire_bytes: int
    wire: Curve
    remaining: Curve
    silences: Curve


class Own:
    """A guest under relocd on the scene's host ``a``; ``number`` makes its address."""

    def __init__(self, scene: Scene, load: Load, number: int = 10) -> None:
        self._scene, self._load = scene, load
        self._here, self._there = scene.a, scene.b
        self._guest = Guest(f"guest{number}", number, load.memory_mib, load.settings())
        config = scene.directory / f"{self._guest.name}.cfg"
        config.write_text(self._guest.domain_file(scene.image))
        self._here.relocctl("create", config)

    def wait_filled(self) -> MemCheck:
        """Wait until the guest's memory is as the load says. Raises TestbedError."""
        return wait_filled(self._scene.client.netns, self._guest.ip, timeout_s=FILL_S)

    def stat(self) -> MemCheck:
        """The guest's counters."""
        return guest_stat(self._scene.client.netns, self._guest.ip, timeout_s=ANSWER_S)

    def pause(self) -> None:
        """Have the guest keep still."""
        self._here.relocctl("pause", self._guest.name)

    def unpause(self) -> None:
        """Let it go on."""
        self._here.relocctl("unpause", self._guest.name)

    def echoes(self) -> UdpEchoClient:
        """A client of the guest that sees blackouts."""
        return UdpEchoClient(self._scene.client, self._guest.ip, interval_ms=ECHO_INTERVAL_MS)

    def usage(self) -> Usage:
        """What both daemons and all that they started use of the machine."""
        daemons = [host.process for host in (self._here, self._there)]
        return Usage([[daemon.pid] for daemon in daemons if daemon])

    def move(self) -> Figures:
        """One relocation to the other host. Raises TestbedError if it does not complete."""
        with self.echoes() as udp:
            udp.wait_answered()
            with self.usage() as usage:
                moved = self.relocate(udp)
        return self.figures(moved, usage)

    def relocate(self, udp: UdpEchoClient) -> Relocated:
        """The bare relocation, seen by ``udp``. Raises TestbedError if it does not complete."""
        source, target = self._here, self._there
        assert source.process is not None
        with Wire(source.process.pid) as wire:
            began_s, began_unix_s = time.monotonic(), time.time()
            reply = source.relocctl("migrate", "--live", self._guest.name, target.host.address)
            returned_s = time.monotonic()
        self._here, self._there = target, source
        outcome = reply.result
        seen = see(udp, began_s, returned_s - since_switchover_s(reply))
        total_s = returned_s - began_s - (outcome["release_s"] or 0.0)
        return Relocated(
            outcome,
            began_s,
            total_s,
            seen,
            wire.total_bytes,
            wire.since(began_s),
            tuple(_left(_record(source, reply), began_unix_s, total_s)),
            silences(udp.echoes_s(), began_s),
        )

    def figures(self, moved: Relocated, usage: Usage | None = None) -> Figures:
        """Both put together; ``usage`` is that of a move that was alone."""
        return Figures(
            completed=moved.outcome["outcome"] == "completed",
            memory_mib=self._load.memory_mib,
            total_s=moved.total_s,
            wire_bytes=moved.wire_bytes,
            sent_bytes=moved.outcome["bytes_sent"],
            rounds=moved.outcome["rounds"],
            cpu_s=usage.cpu_s if usage else None,
            load=usage.load if usage else None,
            downtime_ms=moved.outcome["downtime_ms"],
            blackout_ms=moved.seen.blackout_ms,
            gap_ms=moved.seen.gap_ms,
            private_mib=usage.private_mib if usage else None,
            cpu_by_name=usage.cpu_by_name() if usage else {},
            wire=moved.wire,
            remaining=moved.remaining,
            silences=moved.silences,
        )


def _record(source: RelocdHost, reply: Reply) -> Mapping[str, Any]:
    """The relocation's record, with its timeline."""
    (record,) = source.relocctl("history", reply.result["relocation"]).result
    return dict(record)


def _left(record: Mapping[str, Any], began_unix_s: float, total_s: float) -> Iterator[tuple[float, int]]:
    """Bytes left to send: the samples of the timeline that have counted, and the end."""
    for moment in record["timeline"]:
        if moment["kind"] == "sample" and moment["remaining_bytes"]:
            yield max(0.0, moment["at_s"] - began_unix_s), moment["remaining_bytes"]
    yield total_s, 0
