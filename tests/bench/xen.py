"""relocd beside ``xl migrate`` over ssh, between two Xen hosts, in turn."""

from __future__ import annotations

import time

from tests.bench.compare import Found, Told
from tests.bench.figures import OWN, Figures, Load
from tests.bench.wire import Wire
from tests.testbed.xen.install import Installed
from tests.xen.scene import GUEST_WORK, XenScene

XL = "xl migrate"

_STOCK, _OURS = "stock", "ours"


class _Guest:
    """A guest and who moves it. Both are the same, but that xl's is one that relocd knows nothing of."""

    def __init__(self, scene: XenScene, load: Load, name: str, number: int) -> None:
        self.name, self._number = name, number
        self._scene, self._load = scene, load
        self._here, self._there = scene.a, scene.b
        work = {**GUEST_WORK, **load.settings()}
        scene.start_guest(
            self._here, name, number, memory_mib=load.memory_mib, work=work, by_xl=name == _STOCK
        )

    def pause(self) -> None:
        """Have it keep still."""
        if self.name == _STOCK:
            self._here.host.run(f"xl pause {self.name}")
        else:
            self._here.ask("pause", domain=self.name)

    def unpause(self) -> None:
        """Let it go on."""
        if self.name == _STOCK:
            self._here.host.run(f"xl unpause {self.name}")
        else:
            self._here.ask("unpause", domain=self.name)

    @property
    def bad(self) -> int:
        """Pages that it found damaged."""
        return self._scene.stat(self._number).bad

    def move(self) -> Figures:
        """To the other host. Raises TestbedError if it does not get there."""
        source, target = self._here, self._there
        with self._scene.udp(self._number) as udp:
            udp.wait_answered()
            with Wire(source.host.process.pid, tap=source.host.tap) as wire:
                began_s = time.monotonic()
                move = _by_xl if self.name == _STOCK else _by_relocd
                rounds, downtime_ms = move(self.name, source, target)
                returned_s = time.monotonic()
            self._here, self._there = target, source
            udp.wait_echo_after(returned_s, timeout_s=120)
            gap_ms = udp.blackout_ms(began_s, returned_s)
        return Figures(
            completed=True,
            memory_mib=self._load.memory_mib,
            total_s=returned_s - began_s,
            wire_bytes=wire.total_bytes,
            sent_bytes=wire.total_bytes,
            rounds=rounds,
            downtime_ms=downtime_ms,
            blackout_ms=gap_ms,
            gap_ms=gap_ms,
            wire=wire.since(began_s),
        )


def _by_xl(name: str, source: Installed, target: Installed) -> tuple[int | None, float | None]:
    source.host.run(f"xl migrate {name} {target.host.address}", timeout_s=1200)
    return None, None


def _by_relocd(name: str, source: Installed, target: Installed) -> tuple[int | None, float | None]:
    outcome = source.relocctl("migrate", "--live", name, target.host.address).result
    return outcome["rounds"], outcome["downtime_ms"]


def beside_xl(load: Load, runs: int, tell: Told) -> Found:
    """On hosts of their own; see ``in_turn``."""
    with XenScene() as scene:
        return in_turn(scene, load, runs, tell)


def in_turn(scene: XenScene, load: Load, runs: int, tell: Told) -> Found:
    """Each once a run, there in one and back in the next; the guest that waits is paused."""
    scene.pair.trust()
    guests = {XL: _Guest(scene, load, _STOCK, 20), OWN: _Guest(scene, load, _OURS, 21)}
    found: dict[str, list[Figures]] = {who: [] for who in guests}
    for guest in guests.values():
        guest.pause()
    for number in range(runs):
        for who, guest in guests.items():
            guest.unpause()
            found[who].append(guest.move())
            tell(number, who, found[who][-1])
            guest.pause()
    for guest in guests.values():
        guest.unpause()
    return found, sum(guest.bad for guest in guests.values())
