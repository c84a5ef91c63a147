"""Daemons killed and the link cut, before xl gave the domain away and after: one running copy, known on both sides.

``held`` in a keeper's story is the moment after which xl does not bring the domain back by itself; ``loaded`` is the
target's counterpart. A loop in dom0 waits for the word and strikes at once.
"""

from __future__ import annotations

import time

import pytest

from tests.testbed.commands import TestbedError
from tests.testbed.xen.install import Installed
from tests.xen.scene import XenScene

pytestmark = [pytest.mark.xen, pytest.mark.timeout(2400)]

NUMBER = 12
SETTLED_S = 600.0
_KILL = "systemctl kill --signal=KILL relocd"


@pytest.fixture(scope="module", autouse=True)
def guest(scene: XenScene) -> None:
    scene.start_guest(scene.a, "db", NUMBER)


def when(host: Installed, word: str, action: str) -> None:
    """Have ``action`` done in dom0 as soon as a keeper has said ``word``."""
    stories = "/run/relocd/domains/*/story"
    loop = f"until grep -qs '^{word}' {stories}; do sleep 0.2; done; {action}"
    host.host.run(f"rm -f {stories}; nohup sh -c {_quoted(loop)} < /dev/null > /tmp/when.log 2>&1 &")


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def sides(scene: XenScene) -> tuple[Installed, Installed]:
    """Where the guest is, and the other host."""
    return (scene.a, scene.b) if "db" in scene.a.states() else (scene.b, scene.a)


def settle(scene: XenScene) -> Installed:
    """Wait until no relocation is open on either host; the one host that runs the only copy."""
    deadline = time.monotonic() + SETTLED_S
    while time.monotonic() < deadline:
        try:
            views = [(each, each.states(), each.xen_states()) for each in (scene.a, scene.b)]
            open_ones = [each.ask("status").get("relocations") for each in (scene.a, scene.b)]
        except TestbedError:
            time.sleep(1)  # a daemon that was killed is on its way up
            continue
        holders = [each for each, states, _ in views if states.get("db") == "running"]
        copies = [name for _, _, names in views for name in names if name.startswith("db")]
        alive = [name for each in (scene.a, scene.b) for name in each.running() if name.startswith("db")]
        assert len(alive) <= 1, f"two copies run: {alive}"
        if not any(open_ones) and len(holders) == 1 and copies == ["db"]:
            return holders[0]
        time.sleep(1)
    raise AssertionError(f"not settled: {views}, {open_ones}")


def outcomes(host: Installed) -> str:
    """What the history of a host says of the last relocation."""
    return str(host.ask("history")["relocations"][0]["outcome"])


@pytest.mark.parametrize(
    ("victim", "word", "may_be_at"),
    [
        ("source", "suspended", {"source"}),
        ("source", "held", {"source", "target"}),
        ("target", "loaded", {"source", "target"}),
    ],
)
def test_a_daemon_is_killed(scene: XenScene, victim: str, word: str, may_be_at: set[str]) -> None:
    source, target = sides(scene)
    before = scene.stat(NUMBER)
    when(source if victim == "source" else target, word, _KILL)
    source.relocctl("migrate", "--live", "db", target.host.address, check=False)
    winner = settle(scene)
    assert ("source" if winner is source else "target") in may_be_at
    after = scene.stat(NUMBER)
    assert after.follows(before)
    assert after.bad == 0
    assert outcomes(source) == ("completed" if winner is target else "failed")


@pytest.mark.parametrize(("word", "may_be_at"), [("suspended", {"source"}), ("held", {"source", "target"})])
def test_the_link_is_cut(scene: XenScene, word: str, may_be_at: set[str]) -> None:
    source, target = sides(scene)
    before = scene.stat(NUMBER)
    peer = target.host.address
    drop = f"iptables -I OUTPUT -d {peer} -j DROP; iptables -I INPUT -s {peer} -j DROP"
    heal = f"iptables -D OUTPUT -d {peer} -j DROP; iptables -D INPUT -s {peer} -j DROP"
    when(source, word, f"{drop}; sleep 60; {heal}")
    source.relocctl("migrate", "--live", "db", peer, check=False)
    winner = settle(scene)
    assert ("source" if winner is source else "target") in may_be_at
    after = scene.stat(NUMBER)
    assert after.follows(before)
    assert after.bad == 0
