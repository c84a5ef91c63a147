"""``make bench``: QEMU's own migration and relocd in turn, in the same run, on the same shaped link.

Two guests of the same kind, one under plain QEMU, one under relocd. While one moves the other is paused, so that both
have the machine for themselves. Absolute times depend on the machine; the ratios are what counts.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from attrs import asdict, frozen

from tests.scene import SPARE_S, Scene
from tests.testbed.image import guest_cmdline
from tests.testbed.memcheck import MemCheck, guest_stat
from tests.testbed.network import PREFIX_LENGTH, SUBNET, Host, Shape
from tests.testbed.rawqemu import RawQemu
from tests.testbed.udp import UdpEchoClient

PEER_IP = f"{SUBNET}.11"
PEER_MAC = "52:54:00:4c:4f:11"
FILL_S = 300.0


@frozen
class Load:
    """What a guest is and does. Sizes in MiB, the dirty rate in MB/s."""

    memory_mib: int
    fill_mib: int
    dirty_mb_s: int
    working_set_mib: int
    content: str


@frozen
class Figures:
    """One move. ``total_s`` is from the command to its return, ``sent_bytes`` what went over the wire.

    ``blackout_ms`` is the gap in a client's echoes around the switchover, ``gap_ms`` the longest gap of the move.
    """

    total_s: float
    downtime_ms: float
    blackout_ms: float
    gap_ms: float
    sent_bytes: int
    rounds: int


class Peer:
    """A guest under plain QEMU, moved by QEMU's own tcp migration, its bandwidth limit lifted."""

    name = "qemu tcp"

    def __init__(self, scene: Scene, load: Load) -> None:
        self._scene, self._load = scene, load
        self._hosts: tuple[Host, Host] = scene.network.hosts
        self._moves = 0
        self._qemu = self._start(self._hosts[0], incoming=False)

    def _start(self, host: Host, *, incoming: bool) -> RawQemu:
        cmdline = guest_cmdline(f"{PEER_IP}/{PREFIX_LENGTH}", **_settings(self._load))
        tap = f"peer{self._moves}"
        qemu = RawQemu(
            self._scene.image,
            self._load.memory_mib,
            cmdline,
            host=host,
            tap=tap,
            incoming=incoming,
            mac=PEER_MAC,
        )
        return qemu.__enter__()

    def wait_filled(self) -> MemCheck:
        return _filled(self._scene, PEER_IP)

    def pause(self) -> None:
        self._qemu.qmp.command("stop")

    def unpause(self) -> None:
        self._qemu.qmp.command("cont")

    def move(self) -> Figures:
        """One migration to the other host."""
        self._moves += 1
        target_host = self._hosts[self._moves % 2]
        with UdpEchoClient(self._scene.client, PEER_IP) as udp:
            udp.wait_answered()
            target = self._start(target_host, incoming=True)
            began_s = time.monotonic()
            result = self._qemu.migrate_tcp(target, target_host.address, parameters={"max-bandwidth": 0})
            total_s = time.monotonic() - began_s
            if not result.completed:
                target.__exit__(None, None, None)
                raise RuntimeError(f"QEMU's own migration did not complete: {result}")
            ended_s = time.monotonic()
            udp.wait_echo_after(ended_s)
            blackout_ms = udp.blackout_ms(ended_s - result.downtime_ms / 1000 - SPARE_S)
            gap_ms = udp.blackout_ms(began_s)
        self._qemu.__exit__(None, None, None)
        self._qemu = target
        return Figures(total_s, result.downtime_ms, blackout_ms, gap_ms, result.sent_bytes, result.rounds)

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
        self._here.relocctl("create", scene.domain_file(memory_mib=load.memory_mib, **_settings(load)))

    def wait_filled(self) -> MemCheck:
        return self._scene.wait_guest(lambda stat: stat.full, FILL_S)

    def pause(self) -> None:
        self._here.relocctl("pause", "guest")

    def unpause(self) -> None:
        self._here.relocctl("unpause", "guest")

    def move(self) -> Figures:
        """One relocation to the other host."""
        with self._scene.udp() as udp:
            udp.wait_answered()
            move = self._scene.move(self._here, self._there, udp)
        self._here, self._there = self._there, self._here
        outcome = move.outcome
        return Figures(
            move.command_s,
            outcome["downtime_ms"],
            move.blackout_ms,
            move.longest_gap_ms,
            outcome["bytes_sent"],
            outcome["rounds"],
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the comparison; 0 if relocd was no slower than its peer and no page was damaged."""
    arguments = _parser().parse_args(argv)
    load = Load(arguments.memory, arguments.fill, arguments.rate, arguments.working_set, arguments.content)
    shape = None if arguments.link == "none" else Shape(rate=arguments.link)
    filled = f"{load.fill_mib} MiB filled ({load.content})"
    guest = f"guest {load.memory_mib} MiB, {filled}, {load.dirty_mb_s} MB/s dirtied"
    print(f"{guest}; link {arguments.link}; {arguments.runs} runs each, in turn", flush=True)
    figures, bad = compare(load, shape, arguments.runs)
    ratio = report(figures)
    if arguments.json:
        plain = {name: [asdict(row) for row in rows] for name, rows in figures.items()}
        arguments.json.write_text(
            json.dumps({"load": asdict(load), "link": arguments.link, "runs": plain}, indent=2)
        )
    if bad:
        print(f"FAILED: {bad} bad pages in the guests")
    return 1 if bad or ratio > 1.0 else 0


def compare(load: Load, shape: Shape | None, runs: int) -> tuple[dict[str, list[Figures]], int]:
    """All runs, and the number of bad pages that the guests found."""
    figures: dict[str, list[Figures]] = {Peer.name: [], Own.name: []}
    with Scene() as scene, Peer(scene, load) as peer:
        peer.wait_filled()
        peer.pause()
        own = Own(scene, load)
        own.wait_filled()
        own.pause()
        scene.network.shape(shape) if shape else None
        for number in range(runs):
            for guest in (peer, own):
                guest.unpause()
                row = guest.move()
                figures[guest.name].append(row)
                print(f"  run {number + 1}: {guest.name:9} {row.total_s:6.2f} s", flush=True)
                if guest is own:
                    bad = scene.stat().bad
                guest.pause()
        peer.unpause()
        bad += guest_stat(scene.client.netns, PEER_IP).bad
    return figures, bad


def report(figures: dict[str, list[Figures]]) -> float:
    """Print medians and ratios; return the ratio of total times, relocd to its peer."""
    heads = ("total s", "MB on wire", "downtime ms", "blackout ms", "longest gap", "rounds")
    print(f"\n{'median of':12}" + "".join(f"{head:>13}" for head in heads))
    medians = {}
    for name, rows in figures.items():
        columns = zip(*(asdict(row).values() for row in rows), strict=True)
        middle = medians[name] = Figures(*(statistics.median(column) for column in columns))
        print(f"{name:12}{middle.total_s:13.2f}{middle.sent_bytes / 1e6:13.0f}{middle.downtime_ms:13.0f}"
              f"{middle.blackout_ms:13.0f}{middle.gap_ms:13.0f}{middle.rounds:13.0f}")  # fmt: skip
    peer, own = medians[Peer.name], medians[Own.name]
    pairs = [o.total_s / p.total_s for p, o in zip(figures[Peer.name], figures[Own.name], strict=True)]
    print(f"{'ratio':12}{own.total_s / peer.total_s:13.2f}{own.sent_bytes / peer.sent_bytes:13.2f}"
          f"{own.downtime_ms / max(peer.downtime_ms, 1):13.2f}{own.blackout_ms / peer.blackout_ms:13.2f}"
          f"{own.gap_ms / peer.gap_ms:13.2f}")  # fmt: skip
    print(f"total time, pair by pair: {', '.join(f'{pair:.2f}' for pair in pairs)}")
    return own.total_s / peer.total_s


def _settings(load: Load) -> dict[str, int | str]:
    return {
        "fill_mib": load.fill_mib,
        "working_set_mib": load.working_set_mib,
        "dirty_mb_s": load.dirty_mb_s,
        "content": load.content,
    }


def _filled(scene: Scene, ip: str) -> MemCheck:
    deadline = time.monotonic() + FILL_S
    while True:
        stat = guest_stat(scene.client.netns, ip, timeout_s=90)
        if stat.full or time.monotonic() > deadline:
            return stat
        time.sleep(0.2)


def _parser() -> argparse.ArgumentParser:
    parse = argparse.ArgumentParser(prog="make bench", description=__doc__.split("\n")[0])
    parse.add_argument("--runs", type=int, default=3, help="moves of each, in turn (default 3)")
    parse.add_argument("--memory", type=int, default=2048, help="of the guest, MiB")
    parse.add_argument("--fill", type=int, default=1000, help="self-checked memory, MiB")
    parse.add_argument("--rate", type=int, default=10, help="dirtied, MB/s")
    parse.add_argument("--working-set", type=int, default=256, help="MiB that are dirtied")
    parse.add_argument("--content", choices=("text", "random"), default="text", help="compressible or not")
    parse.add_argument(
        "--link", default="1gbit", help="rate of the link as tc knows it, or none (default 1gbit)"
    )
    parse.add_argument("--json", type=Path, help="also write every figure here")
    return parse


if __name__ == "__main__":
    sys.exit(main())
