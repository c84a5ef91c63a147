"""The two that ``make bench`` compares: a guest moved by QEMU's own migration, and the same guest under relocd."""

from __future__ import annotations

import time
from types import TracebackType

from attrs import field, frozen

from tests.scene import SPARE_S, Scene
from tests.testbed.image import guest_cmdline
from tests.testbed.memcheck import MemCheck, guest_stat
from tests.testbed.network import PREFIX_LENGTH, SUBNET, Host
from tests.testbed.rawqemu import RawQemu
from tests.testbed.udp import UdpEchoClient
from tests.usage import Usage

PEER_IP = f"{SUBNET}.11"
PEER_MAC = "52:54:00:4c:4f:11"
ECHO_INTERVAL_MS = 4.0
"""How fine a blackout is seen. An echo costs an emulated guest a quarter of a millisecond of processor time: at one a
millisecond the bench would measure how two moves stand a flood."""

FILL_S = 300.0
GIVE_UP_S = 30.0
"""QEMU's own migration may never end; then this is how long it was given."""


@frozen
class Load:
    """What a guest is and does. Sizes in MiB, the dirty rate in MB/s."""

    memory_mib: int = 2048
    fill_mib: int = 1000
    dirty_mb_s: int = 10
    working_set_mib: int = 256
    content: str = "text"

    def settings(self) -> dict[str, int | str]:
        """For the guest's command line."""
        return {
            "fill_mib": self.fill_mib,
            "working_set_mib": self.working_set_mib,
            "dirty_mb_s": self.dirty_mb_s,
            "content": self.content,
        }


@frozen
class Figures:
    """One move. ``total_s`` is from the command to its return, ``sent_bytes`` what went over the wire.

    ``blackout_ms`` is the gap in a client's echoes around the switchover, ``gap_ms`` the longest gap of the move.
    ``cpu_s`` is the processor time of all: both QEMUs, and for relocd both daemons and carriers. Their private memory
    on the side that needs more is ``private_mib``. ``load`` is what else the machine did, as a number of processes.
    """

    completed: bool
    total_s: float
    sent_bytes: int
    cpu_s: float
    downtime_ms: float
    blackout_ms: float
    gap_ms: float
    rounds: int
    private_mib: float
    load: float
    cpu_by_name: dict[str, float] = field(factory=dict)


class Peer:
    """A guest under plain QEMU, moved by QEMU's own tcp migration, its bandwidth limit lifted."""

    name = "qemu tcp"

    def __init__(self, scene: Scene, load: Load) -> None:
        self._scene, self._load = scene, load
        self._hosts: tuple[Host, Host] = scene.network.hosts
        self._moves = 0
        self._qemu = self._start(self._hosts[0], incoming=False)

    def _start(self, host: Host, *, incoming: bool) -> RawQemu:
        cmdline = guest_cmdline(f"{PEER_IP}/{PREFIX_LENGTH}", **self._load.settings())
        tap = f"peer{self._moves}"
        qemu = RawQemu(
            self._scene.image,
            self._load.memory_mib,
            cmdline,
            host=host,
            tap=tap,
            incoming=incoming,
            mac=PEER_MAC,
            pad=False,
        )
        return qemu.__enter__()

    def wait_filled(self) -> MemCheck:
        """Wait until the guest's memory is as the load says."""
        deadline = time.monotonic() + FILL_S
        while not (stat := self.stat()).full and time.monotonic() < deadline:
            time.sleep(0.2)
        return stat

    def stat(self) -> MemCheck:
        """The guest's counters."""
        return guest_stat(self._scene.client.netns, PEER_IP, timeout_s=90)

    def pause(self) -> None:
        self._qemu.qmp.command("stop")

    def unpause(self) -> None:
        self._qemu.qmp.command("cont")

    def move(self) -> Figures:
        """One migration to the other host; the guest stays where it is if that does not end."""
        self._moves += 1
        target_host = self._hosts[self._moves % 2]
        with UdpEchoClient(self._scene.client, PEER_IP, interval_ms=ECHO_INTERVAL_MS) as udp:
            udp.wait_answered()
            target = self._start(target_host, incoming=True)
            with Usage([[self._qemu.process.pid], [target.process.pid]]) as usage:
                began_s = time.monotonic()
                result = self._qemu.migrate_tcp(
                    target, target_host.address, parameters={"max-bandwidth": 0}, timeout_s=GIVE_UP_S
                )
                total_s = time.monotonic() - began_s
            blackout_ms = gap_ms = 0.0
            if result.completed:
                ended_s = time.monotonic()
                udp.wait_echo_after(ended_s)
                blackout_ms = udp.blackout_ms(ended_s - result.downtime_ms / 1000 - SPARE_S)
                gap_ms = udp.blackout_ms(began_s)
        left, self._qemu = (self._qemu, target) if result.completed else (target, self._qemu)
        left.__exit__(None, None, None)
        if not result.completed:
            self._moves -= 1
        return Figures(
            completed=result.completed,
            total_s=total_s,
            sent_bytes=result.sent_bytes,
            cpu_s=usage.cpu_s,
            downtime_ms=result.downtime_ms,
            blackout_ms=blackout_ms,
            gap_ms=gap_ms,
            rounds=result.rounds,
            private_mib=0.0,
            load=usage.load,
            cpu_by_name=usage.cpu_by_name(),
        )

    def __enter__(self) -> Peer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._qemu.__exit__(None, None, None)


class Own:
    """The same guest under relocd."""

    name = "relocd"

    def __init__(self, scene: Scene, load: Load) -> None:
        self._scene = scene
        self._here, self._there = scene.a, scene.b
        self._here.relocctl("create", scene.domain_file(memory_mib=load.memory_mib, **load.settings()))

    def wait_filled(self) -> MemCheck:
        """Wait until the guest's memory is as the load says."""
        return self._scene.wait_guest(lambda stat: stat.full, FILL_S)

    def stat(self) -> MemCheck:
        """The guest's counters."""
        return self._scene.stat()

    def pause(self) -> None:
        self._here.relocctl("pause", "guest")

    def unpause(self) -> None:
        self._here.relocctl("unpause", "guest")

    def move(self) -> Figures:
        """One relocation to the other host."""
        daemons = [host.process for host in (self._here, self._there)]
        with self._scene.udp(ECHO_INTERVAL_MS) as udp:
            udp.wait_answered()
            with Usage([[daemon.pid] for daemon in daemons if daemon]) as usage:
                move = self._scene.move(self._here, self._there, udp)
        self._here, self._there = self._there, self._here
        outcome = move.outcome
        return Figures(
            completed=outcome["outcome"] == "completed",
            total_s=move.command_s - (outcome["release_s"] or 0.0),
            sent_bytes=outcome["bytes_sent"],
            cpu_s=usage.cpu_s,
            downtime_ms=outcome["downtime_ms"],
            blackout_ms=move.blackout_ms,
            gap_ms=move.longest_gap_ms,
            rounds=outcome["rounds"],
            private_mib=usage.private_mib,
            load=usage.load,
            cpu_by_name=usage.cpu_by_name(),
        )
