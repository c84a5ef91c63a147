"""A daemon that dies at any moment leaves a domain that the next one knows, or nothing at all."""

from __future__ import annotations

import collections
import pickle
import subprocess
import sys
from collections.abc import Iterator

import pytest

from relocd.model import DomainConfig, DomainState
from tests.contracts.rigs import QemuRig
from tests.drivers import dying
from tests.drivers.dying import STORIES, Case, Told
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
        argv = [sys.executable, "-c", f"from {dying.__name__} import main; main()"]
        self._process = call(
            lambda: subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        )

    def tells(self, case: Case) -> Told:
        """What came to pass in a story that ends as the case says."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(pickle.dumps(case).hex() + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline().strip()
        assert answer, f"{case.story} failed at {case.effect}"
        told: Told = pickle.loads(bytes.fromhex(answer))
        return told

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
    config = rig.config()
    told = mortal.tells(Case(story, rig.a.paths, config))
    assert not told.died
    assert begin_anew(rig, story, config, ending=is_ending(told)) == []
    known = set(told.begun)
    to_do = collections.deque(told.begun)
    while to_do:
        effect = to_do.popleft()
        for after in (False, True):
            config = rig.config()
            told = mortal.tells(Case(story, rig.a.paths, config, effect, after))
            left = begin_anew(rig, story, config, ending=is_ending(told))
            assert left == [], f"{story}, {'after' if after else 'before'} {effect}"
            to_do.extend(new for new in told.begun if new not in known)
            known.update(told.begun)
    assert {effect.name for effect in known} >= MUST_HAVE[story]


def is_ending(told: Told) -> bool:
    """Its QEMU was told to end."""
    return any(effect.name == "terminate" for effect in told.ended)
