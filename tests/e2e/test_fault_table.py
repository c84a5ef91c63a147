"""The fault table: at every step of the dialogue each part is killed or the link breaks, on real guests.

The wire between the hosts holds a message, so that both sides stand at a known step; then something dies. Daemons are
started again. Each case states where the domain must be in the end, and judges both hosts: one running copy, nothing
left, both journals closed, the guest's counters gone on. The results are written to docs/fault-table.md.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import pytest

from tests.e2e.conftest import Witness
from tests.link import Place, Wire, between
from tests.scene import GUEST_UUID, Moving, Scene
from tests.testbed.daemons import RelocdHost
from tests.testbed.image import CHECKOUT

pytestmark = [pytest.mark.e2e, pytest.mark.faults, pytest.mark.timeout(180)]

DOCUMENT = CHECKOUT / "docs" / "fault-table.md"
SETTLE_S = 60.0
NOTICE_S = 1.5

#: The dialogue's messages at which something happens, in their order.
MESSAGES = ("accept", "receiving", "switchover", "prepared", "commit", "resumed")
VICTIMS = ("source daemon", "target daemon", "source carrier", "target carrier", "target QEMU", "source QEMU")
BREAKS = ("link before", "link after")

HOME, MOVED, GONE = "on the source", "on the target", "gone with its hypervisor"


def expected(message: str, fault: str) -> str:
    """Where the domain must be after ``fault`` while ``message`` was on its way."""
    if fault == "source QEMU":
        return MOVED if message in ("commit", "resumed") else GONE
    if fault == "target QEMU" and message == "commit":
        return HOME  # the paused copy there died before it was told to run, and the target says so
    if fault == "target QEMU" and message == "resumed":
        return GONE
    if message in ("commit", "resumed"):
        return MOVED
    if message == "prepared" and fault in ("target carrier", "link after"):
        return MOVED  # the target has all it needs, and the source hears so
    return HOME


CASES = [
    (message, fault)
    for message in MESSAGES
    for fault in (*VICTIMS, *BREAKS)
    # Before it streams, the source's hypervisor knows nothing of the relocation; before it is told to build, the
    # target's is not there.
    if not (fault == "source QEMU" and message in ("accept", "receiving"))
    and not (fault == "target QEMU" and message == "accept")
    # When it says that the domain runs, the target's carrier has done its work and gone.
    and not (fault == "target carrier" and message == "resumed")
]


@pytest.fixture(scope="module")
def results() -> Iterator[dict[tuple[str, str], str]]:
    """What each case was seen to end in; becomes the document when all of them ran."""
    seen: dict[tuple[str, str], str] = {}
    yield seen
    if set(seen) == set(CASES):
        DOCUMENT.write_text(document(seen))


@pytest.fixture(scope="module")
def place(scene: Scene) -> Iterator[Place]:
    """The wire's place between host a and host b."""
    with between(scene.a.host, scene.b.host) as place:
        yield place


def states(host: RelocdHost) -> dict[str, str]:
    return {domain["uuid"]: domain["state"] for domain in host.relocctl("list").result}


def kill(host: RelocdHost, needle: str) -> None:
    """kill -9 of every process on a host whose command line says so."""
    victims = [pid for pid, line in host.processes().items() if needle in line]
    assert victims, f"no {needle} on {host.host.name}"
    for pid in victims:
        os.kill(pid, signal.SIGKILL)


def strike(scene: Scene, wire: Wire, fault: str) -> None:
    """Kill the victim. What a killed daemon's connections held is lost with them; otherwise the message goes on."""
    host = scene.a if fault.startswith("source") else scene.b
    if fault.endswith("daemon"):
        host.kill()
        wire.cut()
        host.start()
    else:
        before = [row["state"] for row in host.relocctl("status").result]
        kill(host, "relocd.carrier" if fault.endswith("carrier") else "qemu-system")
        wait_noticed(host, before)
        wire.release()


def wait_noticed(host: RelocdHost, before: list[str]) -> None:
    """Give a host the time to notice a death: until its relocation leaves its state, if it ever does."""
    deadline = time.monotonic() + NOTICE_S
    while time.monotonic() < deadline and [row["state"] for row in host.relocctl("status").result] == before:
        time.sleep(0.05)


def settle(scene: Scene) -> str:
    """Wait until nothing is under way on either host, and say where the domain runs."""
    deadline = time.monotonic() + SETTLE_S
    while any(host.relocctl("status").result for host in (scene.a, scene.b)):
        assert time.monotonic() < deadline, "the hosts do not come to a decision"
        time.sleep(0.1)
    where = {HOME: states(scene.a).get(GUEST_UUID), MOVED: states(scene.b).get(GUEST_UUID)}
    running = [place for place, state in where.items() if state == "running"]
    others = [state for state in where.values() if state not in (None, "running")]
    assert len(running) <= 1, f"two copies run: {where}"
    assert not others, f"a copy is left behind: {where}"
    return running[0] if running else GONE


def bring_home(scene: Scene) -> None:
    """Have the guest run on host a, wherever the case before left it."""
    if GUEST_UUID in states(scene.b):
        scene.b.relocctl("migrate", "--live", "guest", scene.a.host.address)
    elif GUEST_UUID not in states(scene.a):
        scene.start_guest(scene.a, fill_mib=64, working_set_mib=16, dirty_mb_s=10)


def open_marks(host: RelocdHost) -> list[str]:
    """Marks of a host's journal that still wait for something."""
    rows = host.relocctl("history", "--limit", "5").result
    return [row["mark"] for row in rows if row["mark"] in ("begun", "committed")]


def run_case(scene: Scene, place: Place, message: str, fault: str) -> Moving:
    """One relocation with one fault; returns when both sides have noticed what there is to notice."""
    held = fault not in BREAKS
    wire = Wire(place, f"({message}", action="hold" if held else fault.removeprefix("link "))
    try:
        moving = scene.begin_move(scene.a, scene.b)
        assert wire.struck.wait(60), f"{message} never came by"
        if held:
            strike(scene, wire, fault)
        moving.finish()
        settle(scene)
    finally:
        wire.close()
    return moving


@pytest.mark.parametrize(
    ("message", "fault"), CASES, ids=[f"{fault} at {message}" for message, fault in CASES]
)
def test_fault(
    scene: Scene, place: Place, results: dict[tuple[str, str], str], message: str, fault: str
) -> None:
    bring_home(scene)
    witness = Witness(scene)
    run_case(scene, place, message, fault)
    end = settle(scene)
    assert end == expected(message, fault)
    assert open_marks(scene.a) == []
    assert open_marks(scene.b) == []
    if end == HOME:
        witness.runs_on_a()
    elif end == MOVED:
        witness.runs_on_b()
    else:
        for host in (scene.a, scene.b):
            assert states(host) == {}
            host.wait_clean()
    results[message, fault] = end


def document(seen: dict[tuple[str, str], str]) -> str:
    """The table as a page; the same results give the same page."""
    faults = (*VICTIMS, *BREAKS)
    lines = [
        "# The fault table",
        "",
        "Written by `tests/e2e/test_fault_table.py` from what it saw on real QEMU guests. A message of the",
        "dialogue is held on its way (rows); then a process is killed with SIGKILL, or the link breaks before or",
        "behind the message (columns). Killed daemons are started again. The cells say where the domain ran in",
        "the end, as the only copy, with nothing left on the other host, both journals closed, its memory checked.",
        "",
        "| message | " + " | ".join(faults) + " |",
        "|---|" + "---|" * len(faults),
    ]
    for message in MESSAGES:
        cells = [seen.get((message, fault), "-") for fault in faults]
        lines.append(f"| `{message}` | " + " | ".join(cells) + " |")
    lines += [
        "",
        '"Gone with its hypervisor": the only running copy\'s QEMU was killed, which ends a domain with or without a',
        "relocation; neither host starts another copy. `-`: that process has no part in the step.",
        "",
    ]
    return "\n".join(lines)
