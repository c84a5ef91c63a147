"""A daemon that dies at any moment leaves a domain that the next one knows, or nothing at all."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Iterator

import pytest

from relocd.model import DomainConfig, DomainState
from tests.contracts.rigs import QemuRig
from tests.drivers import dying
from tests.drivers.dying import NOTHING, STORIES, Case
from tests.reactor import call, run

pytestmark = [pytest.mark.qemu, pytest.mark.netns, pytest.mark.timeout(300)]

#: Effects that a story must have, or what is counted here is not what the driver does.
MUST_HAVE = {
    "create": {"next_id", "save", "require", "examine", "create_tap", "spawn", "set_up", "cont"},
    "destroy": {"terminate", "delete", "_remove_files", "remove"},
    "receive and discard": {
        "save",
        "create_tap",
        "spawn",
        "migrate-incoming",
        "terminate",
        "delete",
        "remove",
    },
    "send and release": {"save", "getfd", "migrate", "terminate", "delete", "remove"},
}


class Mortal:
    """The process that tells stories; its network is the rig's."""

    def __init__(self) -> None:
        argv = [sys.executable, "-m", dying.__name__]
        self._process = call(
            lambda: subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        )

    def dies_at(self, case: Case) -> str:
        """The effect at which it died, or NOTHING if the story has no effect of that number."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(pickle.dumps(case).hex() + "\n")
        self._process.stdin.flush()
        what = self._process.stdout.readline().strip()
        assert what, f"{case.story} failed at {case.effect}"
        return what

    def close(self) -> None:
        self._process.communicate()


@pytest.fixture
def rig() -> Iterator[QemuRig]:
    rig = QemuRig()
    run(rig.a.driver.stop())
    yield rig
    rig.close()


@pytest.fixture
def mortal(rig: QemuRig) -> Iterator[Mortal]:
    mortal = Mortal()
    yield mortal
    mortal.close()


def begin_anew(rig: QemuRig, story: str, config: DomainConfig, *, ending: bool) -> list[str]:
    """Start a driver, undo with it what the daemon would undo, and say what is left.

    ``ending``: its QEMU has been told to end, and may do so at any moment from now.
    """
    rig.a.restart()
    status = call(rig.a.driver.get, config.uuid)
    if story == "receive and discard":
        run(call(rig.a.driver.incoming, config).discard())
    elif status is not None:
        run(call(rig.a.driver.outgoing, config.uuid).cancel())
        if ending:
            rig.a.wait_gone(config.uuid)
        else:
            if story == "send and release":
                (status,) = call(rig.a.driver.list)
                assert status.state is DomainState.RUNNING
            run(rig.a.driver.destroy(config.uuid))
    assert call(rig.a.driver.list) == []
    left = rig.leftovers(rig.a)
    run(call(rig.a.driver.incoming, config).discard())  # takes away logs
    run(rig.a.driver.stop())
    # The next driver takes a domain that was being destroyed for one that ended, whose logs are kept for a week.
    return [name for name in left if "/log/" not in name or story not in ("destroy", "send and release")]


@pytest.mark.parametrize("story", STORIES)
def test_whenever_it_dies_a_domain_is_known_or_nothing_is_left(
    rig: QemuRig, mortal: Mortal, story: str
) -> None:
    seen: set[str] = set()
    effect = 0
    while True:
        config = rig.config()
        for after in (False, True):
            what = mortal.dies_at(Case(story, rig.a.paths, config, effect, after))
            ending = "terminate" in seen or (after and what == "terminate")
            left = begin_anew(rig, story, config, ending=ending)
            assert left == [], f"{story}, {'after' if after else 'before'} {what}"
        if what == NOTHING:
            break
        seen.add(what)
        effect += 1
    assert seen >= MUST_HAVE[story]
