"""Four guests moved at once, and one after another."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from tests.bench.compare import Told, warm
from tests.bench.figures import OWN, Figures, Load
from tests.bench.goals import covered_s
from tests.bench.own import Own, Relocated
from tests.scene import Scene
from tests.testbed.network import Shape

GUESTS = 4
ALONE = "relocd, alone"
"""Each guest, moved while the others stay."""

AT_ONCE, IN_TURN = "four at once", "four in turn"
"""All four as one, from the first command to the last end."""


def four(load: Load, link: str | None, runs: int, tell: Told) -> tuple[dict[str, list[Figures]], int]:
    """All moves, those of guests that moved with the others under ``relocd``, and how many bad pages guests found."""
    found: dict[str, list[Figures]] = {IN_TURN: [], AT_ONCE: [], ALONE: [], OWN: []}
    with Scene() as scene:
        guests = [Own(scene, load, 10 + number) for number in range(GUESTS)]
        for guest in guests:
            guest.wait_filled()
        if link:
            scene.network.shape(Shape(rate=link))
        for number in range(runs):
            for whole, each, way in ((IN_TURN, ALONE, _in_turn), (AT_ONCE, OWN, _at_once)):
                warm(load.memory_mib * GUESTS)
                group, rows = _moved(guests, way)
                found[whole].append(group)
                found[each] += rows
                tell(number, whole, group)
        bad = sum(guest.stat().bad for guest in guests)
    return found, bad


Way = Callable[[Sequence[Callable[[], Relocated]]], list[Relocated]]


def _in_turn(moves: Sequence[Callable[[], Relocated]]) -> list[Relocated]:
    return [move() for move in moves]


def _at_once(moves: Sequence[Callable[[], Relocated]]) -> list[Relocated]:
    with ThreadPoolExecutor(len(moves)) as threads:
        return [move.result() for move in [threads.submit(move) for move in moves]]


def _moved(guests: Sequence[Own], way: Way) -> tuple[Figures, list[Figures]]:
    """The whole as one move, and each; what is used of the machine can only be told of the whole."""
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(guest.echoes()) for guest in guests]
        for client in clients:
            client.wait_answered()
        with guests[0].usage() as usage, guests[0].wire() as wire:
            moved = way([guest.relocate for guest in guests])
        rows = [own.figures(one, udp) for own, one, udp in zip(guests, moved, clients, strict=True)]
    whole = Figures(
        completed=all(row.completed for row in rows),
        memory_mib=sum(row.memory_mib for row in rows),
        total_s=covered_s([(one.began_s, one.began_s + one.total_s) for one in moved]),
        wire_bytes=wire.total_bytes,
        sent_bytes=sum(row.sent_bytes for row in rows),
        rounds=max(row.rounds or 0 for row in rows),
        cpu_s=usage.cpu_s,
        load=usage.load,
        private_mib=usage.private_mib,
        cpu_by_name=usage.cpu_by_name(),
    )
    return whole, rows
