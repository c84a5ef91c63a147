"""``make demo``: a real guest moves live from host A to B and back, then offline, while clients talk to it."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable

from rich.console import Console

from tests.scene import Move, Scene
from tests.testbed.commands import TestbedError
from tests.testbed.netns import NAMESPACES

FILL_MIB, MEMORY_MIB, DIRTY_MB_S = 128, 256, 10


def main() -> int:
    """Run the demo; 0 only if every promise was seen to hold."""
    out = Console(highlight=False, soft_wrap=True)
    out.print(
        "relocd demo: two hosts (network namespaces), one real Linux guest under QEMU, a client that watches.\n"
    )
    try:
        moves = run(out)
    except TestbedError as error:
        out.print(f"\n[bold red]The demo failed:[/] {error}")
        return 1
    bad = sum(move.after.bad for _, move in moves)
    continued = all(move.after.follows(move.before) for _, move in moves)
    leftovers = sorted(path.name for path in NAMESPACES.glob(f"relocd-{os.getpid()}-*"))
    if bad or not continued or leftovers:
        out.print(
            f"[bold red]FAILED[/]: {bad} bad pages, counters continue: {continued}, left behind: {leftovers}"
        )
        return 1
    out.print("No bad page, all counters went on, both connections lived, nothing is left behind.")
    return 0


def run(out: Console) -> list[tuple[str, Move]]:
    """The show itself."""
    say = _Teller(out)
    say("building the guest (Debian cloud kernel, busybox, self-checking memory; cached)")
    with Scene() as scene:
        say("two hosts are up, relocd is ready on both")
        scene.start_guest(
            scene.a, memory_mib=MEMORY_MIB, fill_mib=FILL_MIB, working_set_mib=16, dirty_mb_s=DIRTY_MB_S
        )
        say(
            f"guest booted on host A: {MEMORY_MIB} MiB, {FILL_MIB} MiB self-checked, {DIRTY_MB_S} MB/s being dirtied"
        )
        with scene.udp() as udp, scene.ssh() as ssh, scene.tcp() as tcp:
            udp.wait_answered()
            ssh.wait_more(5)
            tcp.wait_more(5)
            say("client: UDP echoes every millisecond, one ssh session, one TCP connection")
            moves = []
            for title, source, target, live in (
                ("A to B, live", scene.a, scene.b, True),
                ("B to A, live", scene.b, scene.a, True),
                ("A to B, offline", scene.a, scene.b, False),
            ):
                move = scene.move(source, target, udp, live=live)
                ssh.wait_more(5)
                tcp.wait_more(5)
                moves.append((title, move))
                say(f"moved {title}: {_in_short(move)}")
            say(
                f"ssh: {ssh.stats().exchanged} lines in order, TCP: {tcp.stats().exchanged} echoes, same connections"
            )
        scene.b.relocctl("destroy", "guest")
        scene.a.wait_clean()
        scene.b.wait_clean()
    out.print()
    out.print(table(moves))
    return moves


class _Teller:
    """Prints what happens, with the seconds since the start."""

    def __init__(self, out: Console) -> None:
        self._out = out
        self._began = time.monotonic()

    def __call__(self, text: str) -> None:
        self._out.print(f"{time.monotonic() - self._began:6.1f} s  {text}")


def _in_short(move: Move) -> str:
    outcome = move.outcome
    return f"{outcome['duration_s']:.1f} s, {outcome['rounds']} rounds, blackout {move.blackout_ms:.0f} ms"


COLUMNS = (
    ("", 16, "<"),
    ("blackout", 10, ">"),
    ("downtime", 10, ">"),
    ("rounds", 8, ">"),
    ("time", 9, ">"),
    ("sent", 10, ">"),
    ("pages verified", 22, ">"),
    ("bad pages", 12, ">"),
)


def table(moves: list[tuple[str, Move]]) -> str:
    """The moves as a table for a terminal of 90 columns."""
    lines = [_line(heading for heading, _, _ in COLUMNS)]
    for title, move in moves:
        outcome = move.outcome
        cells = (
            title,
            f"{move.blackout_ms:.0f} ms",
            f"{outcome['downtime_ms']:.0f} ms",
            str(outcome["rounds"]),
            f"{outcome['duration_s']:.2f} s",
            f"{outcome['bytes_sent'] / 1e6:.1f} MB",
            f"{move.before.verified} -> {move.after.verified}",
            f"{move.before.bad} -> {move.after.bad}",
        )
        lines.append(_line(cells))
    return "\n".join(lines)


def _line(cells: Iterable[str]) -> str:
    return "".join(
        f"{cell:{align}{width}}" for cell, (_, width, align) in zip(cells, COLUMNS, strict=True)
    ).rstrip()


if __name__ == "__main__":
    sys.exit(main())
