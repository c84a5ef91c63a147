"""The contenders in turn, on the same link, in the same minutes.

Two guests of the same kind, one under plain QEMU, one under relocd. While one moves the other is paused, so that both
have the machine for themselves.
"""

from __future__ import annotations

import contextlib
import mmap
from collections.abc import Callable, Sequence
from functools import partial

from tests.bench.figures import OWN, Figures, Load
from tests.bench.own import Own
from tests.bench.peer import Method, Peer
from tests.scene import Scene
from tests.testbed.network import Shape

Told = Callable[[int, str, Figures], None]
"""Called with the number of the run, who moved, and the figures."""

Found = tuple[dict[str, list[Figures]], int]
"""All moves by who moved, and how many bad pages the guests found."""


def compare(load: Load, link: str | None, runs: int, methods: Sequence[Method], tell: Told) -> Found:
    """Each method and relocd once a run. A method that did not end is not tried again."""
    found: dict[str, list[Figures]] = {name: [] for name in (*(method.name for method in methods), OWN)}
    with contextlib.ExitStack() as stack:
        scene = stack.enter_context(Scene())
        peer = stack.enter_context(Peer(scene, load)) if methods else None
        guests: list[Peer | Own] = [peer] if peer else []
        if peer:
            peer.wait_filled()
            peer.pause()
        own = Own(scene, load)
        own.wait_filled()
        own.pause()
        guests.append(own)
        if link:
            scene.network.shape(Shape(rate=link))
        for number in range(runs):
            for method in methods:
                rows = found[method.name]
                if peer and all(row.completed for row in rows):
                    rows.append(_moved(peer, partial(peer.move, method), load))
                    tell(number, method.name, rows[-1])
            found[OWN].append(_moved(own, own.move, load))
            tell(number, OWN, found[OWN][-1])
        return found, sum(map(_bad_pages, guests))


def _moved(guest: Peer | Own, move: Callable[[], Figures], load: Load) -> Figures:
    guest.unpause()
    warm(load.memory_mib)
    row = move()
    guest.pause()
    return row


def _bad_pages(guest: Peer | Own) -> int:
    guest.unpause()
    bad = guest.stat().bad
    guest.pause()
    return bad


def warm(memory_mib: int) -> None:
    """Touch as much memory as an arriving guest can take, and let it go.

    A virtual machine gives memory that it does not use back to its host (free page reporting); to get it again costs
    it up to 3 s a GiB, here a lottery between the one who comes first and the other.
    """
    with mmap.mmap(-1, memory_mib << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        memory.madvise(mmap.MADV_HUGEPAGE)
        for page in range(0, memory_mib << 20, mmap.PAGESIZE):
            memory[page] = 1
