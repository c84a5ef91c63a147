"""The fault table: at every step of the dialogue each part is killed or the link breaks, on real guests.

The wire between the hosts holds a step, so that both sides stand at a known point; then something breaks. Each case
states where the domain must be in the end and what is said of it, and judges both hosts. The results are written to
docs/fault-table.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from attrs import evolve

from tests.e2e.faults import CASES, CUTS, Ending, document, expected
from tests.e2e.judge import Judge
from tests.e2e.staging import GUEST, run_case, stage_of
from tests.scene import Scene
from tests.testbed.image import CHECKOUT

pytestmark = [pytest.mark.e2e, pytest.mark.faults, pytest.mark.timeout(180)]

DOCUMENT = CHECKOUT / "docs" / "fault-table.md"

#: So that a cut link is noticed soon. The other cases hold a step for as long as it takes, without anybody giving up.
IMPATIENT: dict[str, str | int] = {
    "xen-relocation-idle-timeout": 3,
    "xen-relocation-connect-timeout": 2,
    "xen-relocation-handshake-timeout": 2,
}


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    """Two hosts, and a guest on host a that dirties memory while it checks it."""
    with Scene() as scene:
        scene.start_guest(scene.a, **GUEST)
        yield scene


@pytest.fixture(scope="module")
def results() -> Iterator[dict[tuple[str, str], Ending]]:
    """What each case was seen to end in; becomes the document when all of them ran."""
    seen: dict[tuple[str, str], Ending] = {}
    yield seen
    if set(seen) == set(CASES):
        DOCUMENT.write_text(document(seen))


@pytest.fixture
def patience(scene: Scene, fault: str) -> None:
    """Have both hosts wait as long as the fault needs."""
    wanted = IMPATIENT if fault in CUTS else {}
    for host in (scene.a, scene.b):
        if host.settings != wanted:
            host.reload(wanted)


@pytest.mark.usefixtures("patience")
@pytest.mark.parametrize(("step", "fault"), CASES, ids=[f"{fault} at {step}" for step, fault in CASES])
def test_fault(scene: Scene, results: dict[tuple[str, str], Ending], step: str, fault: str) -> None:
    stage = stage_of(scene)
    judge = Judge(stage)
    wanted = expected(step, fault)
    ending = judge.ending(run_case(stage, step, fault))
    assert re.search(wanted.said, ending.said), ending
    assert re.fullmatch(wanted.target_mark, ending.target_mark), ending
    ending = evolve(ending, said=wanted.said, target_mark=wanted.target_mark)
    assert ending == wanted
    results[step, fault] = ending
