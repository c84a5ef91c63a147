"""How a case of the fault table is staged: one relocation, held at a step, and one thing that breaks."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable, Iterator
from typing import Any

from attrs import frozen

from tests.e2e.faults import ANSWERS, CLOSES, CUTS, STEPS
from tests.link import Wire, between, severed
from tests.scene import GUEST_UUID, Scene
from tests.testbed.daemons import RelocdHost
from tests.testbed.processes import kill_all

WAIT_S = 60.0
GUEST = {"fill_mib": 32, "working_set_mib": 16, "dirty_mb_s": 10}


@frozen
class Result:
    """What ``relocctl migrate`` said: exit code, outcome object, and stderr."""

    exit_code: int
    outcome: dict[str, Any]
    stderr: str


@frozen
class Stage:
    """Source and target of one relocation: the guest moves from wherever it is."""

    scene: Scene
    source: RelocdHost
    target: RelocdHost

    @property
    def hosts(self) -> tuple[RelocdHost, RelocdHost]:
        return self.source, self.target


def stage_of(scene: Scene) -> Stage:
    """Find the guest; one that is gone is started on host a."""
    if GUEST_UUID in states(scene.b):
        return Stage(scene, scene.b, scene.a)
    if GUEST_UUID not in states(scene.a):
        scene.start_guest(scene.a, **GUEST)
    return Stage(scene, scene.a, scene.b)


def states(host: RelocdHost) -> dict[str, str]:
    """The domains of a host: UUID to state."""
    return {domain["uuid"]: domain["state"] for domain in host.ask("list")["domains"]}


def relocations(host: RelocdHost) -> list[dict[str, Any]]:
    """What is under way on a host."""
    rows: list[dict[str, Any]] = host.ask("status")["relocations"]
    return rows


def wait_until(true: Callable[[], object], what: str, timeout_s: float = WAIT_S) -> None:
    """Return once ``true`` says so."""
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def settle(stage: Stage) -> None:
    """Wait until nothing is under way on either host."""
    wait_until(lambda: not any(map(relocations, stage.hosts)), "the hosts do not come to a decision")


def run_case(stage: Stage, step: str, fault: str) -> Result:
    """One relocation with one fault, up to the decision on both hosts."""
    stock(stage, lacking=step == "boot files")
    after = fault in ("closed after", "cut after")
    # With `prepared` the lanes must go on: the source decides only when its hypervisor has heard all of the target's.
    whole = not (after and step == "prepared")
    with wire_of(stage, step, "deliver" if after else "hold", whole=whole) as wire:
        moving = stage.scene.begin_move(stage.source, stage.target)
        assert wire.struck.wait(WAIT_S), f"{step} never came by"
        if not whole:
            wait_until(lambda: _state(stage.source) == "committed", "the source did not decide")
        _strike(stage, wire, fault)
        exit_code, outcome = moving.finish()
        settle(stage)
    return Result(exit_code, outcome, moving.stderr)


def stock(stage: Stage, *, lacking: bool) -> None:
    """See to it that the target has the guest's boot files, or lacks them."""
    for path in stage.target.boot_files():
        path.unlink()
    for path in () if lacking else stage.source.boot_files():
        shutil.copy(path, stage.target.state_dir / "boot")


@contextlib.contextmanager
def wire_of(stage: Stage, step: str, action: str, *, whole: bool = True) -> Iterator[Wire]:
    """A wire from source to target that waits for a step of the dialogue. What the target asks goes past it."""
    with between(stage.source.host, stage.target.host) as place:
        wire = Wire(place, STEPS[step], action=action, answer=step in ANSWERS, whole=whole)
        try:
            yield wire
        finally:
            wire.close()


def _strike(stage: Stage, wire: Wire, fault: str) -> None:
    host = stage.source if fault.startswith("source") else stage.target
    if fault in CLOSES:
        wire.cut()
    elif fault in CUTS:
        with severed(stage.source.host, stage.target.host):
            wire.release()
            wait_until(lambda: _alone(stage), "the hosts do not notice that they are cut off")
    elif fault.endswith("daemon"):
        host.kill()
        wire.cut()  # what its connections held is lost with them
        host.start()
    else:
        _kill(host, "relocd.carrier" if fault.endswith("carrier") else "qemu-system")
        wire.release()


def _alone(stage: Stage) -> bool:
    """Has each daemon given up on the other?"""
    return not any(host.connections(of_daemon=True) for host in stage.hosts)


def _kill(host: RelocdHost, program: str) -> None:
    """Kill a process and return when the host's daemon knows."""
    if program == "qemu-system":
        wait_until(lambda: GUEST_UUID in states(host), "there is no hypervisor to kill")
    wait_until(lambda: _pids(host, program), f"there is no {program} on {host.host.name}")
    kill_all(_pids(host, program))
    if program == "qemu-system":
        wait_until(lambda: GUEST_UUID not in states(host), "the death of a hypervisor is not seen")
    # A carrier's socket is readable since it died: two turns of the reactor later that has been heard.
    relocations(host)
    relocations(host)


def _pids(host: RelocdHost, program: str) -> list[int]:
    return [pid for pid, line in host.processes().items() if program in line]


def _state(host: RelocdHost) -> str:
    return next((str(row["state"]) for row in relocations(host)), "")
