"""relocd's side of ``make bench``: a guest that its daemons move."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

from attrs import frozen

from tests.bench.echoes import ECHO_INTERVAL_MS, see, silences
from tests.bench.figures import Curve, Figures, Load
from tests.bench.usage import Usage
from tests.bench.wire import Wire
from tests.scene import Scene
from tests.testbed.guests import Guest
from tests.testbed.memcheck import MemCheck, guest_stat, wait_filled
from tests.testbed.udp import UdpEchoClient

FILL_S = 300.0
ANSWER_S = 90.0


@frozen
class Relocated:
    """One relocation: its outcome and its record with the timeline, as docs/control.md has them, when its command
    began (``time.monotonic()``, and Unix time) and returned, and what went over the wire."""

    outcome: Mapping[str, Any]
    record: Mapping[str, Any]
    began_s: float
    began_unix_s: float
    returned_s: float
    wire: Wire

    @property
    def total_s(self) -> float:
        """What the command took, without removing the source's copy."""
        return self.returned_s - self.began_s - float(self.outcome["release_s"] or 0.0)

    @property
    def switchover_s(self) -> float:
        """When the domain was paused; ``time.monotonic()``."""
        paused = next(moment for moment in self._moments("phase") if moment["phase"] == "switchover")
        return self.began_s + self._after_s(paused)

    @property
    def remaining(self) -> Curve:
        """Bytes left to send: the samples of the timeline that have counted, and the end."""
        counted = [moment for moment in self._moments("sample") if moment["remaining_bytes"]]
        return [
            *((self._after_s(moment), moment["remaining_bytes"]) for moment in counted),
            (self.total_s, 0),
        ]

    def _moments(self, kind: str) -> Iterator[Mapping[str, Any]]:
        return (moment for moment in self.record["timeline"] if moment["kind"] == kind)

    def _after_s(self, moment: Mapping[str, Any]) -> float:
        return max(0.0, float(moment["at_s"]) - self.began_unix_s)


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

    def wire(self) -> Wire:
        """What leaves the host where the guest is."""
        assert self._here.process is not None
        return Wire(self._here.process.pid)

    def move(self) -> Figures:
        """One relocation to the other host. Raises TestbedError if it does not complete."""
        with self.echoes() as udp:
            udp.wait_answered()
            with self.usage() as usage:
                moved = self.relocate()
            return self.figures(moved, udp, usage)

    def relocate(self) -> Relocated:
        """The bare relocation. Raises TestbedError if it does not complete."""
        source, target = self._here, self._there
        with self.wire() as wire:
            began_s, began_unix_s = time.monotonic(), time.time()
            reply = source.relocctl("migrate", "--live", self._guest.name, target.host.address)
            returned_s = time.monotonic()
        self._here, self._there = target, source
        (record,) = source.ask("history", relocation=reply.result["relocation"])["relocations"]
        return Relocated(reply.result, record, began_s, began_unix_s, returned_s, wire)

    def figures(self, moved: Relocated, udp: UdpEchoClient, usage: Usage | None = None) -> Figures:
        """All put together; ``usage`` is that of a move that was alone."""
        seen = see(udp, moved.began_s, moved.switchover_s, moved.returned_s)
        return Figures(
            completed=moved.outcome["outcome"] == "completed",
            memory_mib=self._load.memory_mib,
            total_s=moved.total_s,
            wire_bytes=moved.wire.total_bytes,
            sent_bytes=moved.outcome["bytes_sent"],
            rounds=moved.outcome["rounds"],
            cpu_s=usage.cpu_s if usage else None,
            load=usage.load if usage else None,
            downtime_ms=moved.outcome["downtime_ms"],
            blackout_ms=seen.blackout_ms,
            gap_ms=seen.gap_ms,
            private_mib=usage.private_mib if usage else None,
            cpu_by_name=usage.cpu_by_name() if usage else {},
            wire=moved.wire.since(moved.began_s),
            remaining=moved.remaining,
            silences=silences(udp.echoes_s(), moved.began_s, moved.returned_s),
        )
