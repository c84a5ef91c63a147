"""Each check of preflight, provoked for real between two hosts: it alone fails (or warns), and says what it found.

No guest runs: a paused domain without an operating system is as good for this. What one machine cannot be, a host
with an older hypervisor or another processor, is told or started so (``_told``, ``_older_processor``).
"""

from __future__ import annotations

import contextlib
import json
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from attrs import frozen

from relocd.preflight.rules import RULES
from tests.contracts.rigs import boot_file
from tests.testbed.daemons import RelocdHost
from tests.testbed.network import BRIDGE, Testbed, ip_batch

pytestmark = [pytest.mark.e2e, pytest.mark.netns]

UUID = "7d4f0b1e-93ac-4a63-8a55-0d7c2b7f9e21"
SECOND_BRIDGE = "extra0"
SECOND_UPLINK = "extra1"
CONNECT_S = 1


@frozen
class Pair:
    """Two hosts; ``a`` has the domain ``probe``, and ``b`` would take it."""

    directory: Path
    network: Testbed
    a: RelocdHost
    b: RelocdHost

    @property
    def storage(self) -> Path:
        """Where the domain's disks are, on both hosts."""
        return self.directory / "storage"

    def settings(self, **changes: str | int) -> dict[str, str | int]:
        """Of both daemons, with what a test changes (``_`` for ``-``)."""
        own: dict[str, str | int] = {
            "xen-relocation-disk-paths": str(self.storage),
            "xen-relocation-connect-timeout": CONNECT_S,
        }
        return own | {key.replace("_", "-"): value for key, value in changes.items()}

    def domain_file(self, name: str, uuid: str, devices: str = "") -> Path:
        path = self.directory / f"{name}.cfg"
        path.write_text(f'name = "{name}"\nuuid = "{uuid}"\nmemory = 16\n{devices}')
        return path


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    with contextlib.ExitStack() as undo:
        directory = Path(undo.enter_context(tempfile.TemporaryDirectory(prefix="relocd-")))
        network = undo.enter_context(Testbed())
        a, b = (RelocdHost(host, directory / host.name) for host in network.hosts)
        pair = Pair(directory, network, a, b)
        pair.storage.mkdir()
        cable = f"link add {SECOND_UPLINK} type veth peer name {SECOND_UPLINK} netns {b.host.netns}"
        ip_batch(a.host.netns, [cable])
        for host in (a, b):
            host.settings = pair.settings()
            _connect_second_bridge(host)
            undo.enter_context(host)
        for number in (1, 2):
            (pair.storage / f"{number}.img").write_bytes(bytes([number]) * (1 << 20))
        kernel = Path(boot_file(directory, "vmlinuz").path)
        kernel.write_bytes(kernel.read_bytes().ljust(2 << 20, b"\0"))
        disks = ", ".join(f'"phy:{pair.storage}/{n}.img,xvd{"_ab"[n]},w"' for n in (1, 2))
        vifs = ", ".join(f'"bridge={bridge}"' for bridge in (BRIDGE, SECOND_BRIDGE))
        devices = f'kernel = "{kernel}"\ndisk = [{disks}]\nvif = [{vifs}]\n'
        a.relocctl("create", "--paused", pair.domain_file("probe", UUID, devices))
        yield pair


def _connect_second_bridge(host: RelocdHost) -> None:
    """The second bridges are joined by a cable of their own."""
    commands = [
        f"link add {SECOND_BRIDGE} type bridge",
        f"link set {SECOND_UPLINK} master {SECOND_BRIDGE} up",
        f"link set {SECOND_BRIDGE} up",
    ]
    ip_batch(host.host.netns, commands)


# -- what is done to host b, and undone ---------------------------------------------------------------------------


@contextlib.contextmanager
def _reloaded(pair: Pair, **changes: str | int) -> Iterator[None]:
    _as_usual(pair)
    pair.b.reload(pair.settings(**changes))
    yield
    pair.b.reload(pair.settings())


@contextlib.contextmanager
def _restarted(pair: Pair, *wrapper: str | Path, **changes: str | int) -> Iterator[None]:
    """Host b as something else. Who needs it as usual afterwards starts it: most that follow do not."""
    pair.b.terminate()
    pair.b.wrapper = wrapper
    pair.b.write_config(pair.settings(**changes))
    pair.b.start()
    yield
    pair.b.terminate()
    pair.b.wrapper = ()
    pair.b.write_config(pair.settings())


def _as_usual(pair: Pair) -> None:
    if pair.b.process is None:
        pair.b.start()


@contextlib.contextmanager
def _told(pair: Pair, change: Callable[[dict[str, Any]], None]) -> Iterator[None]:
    """What QEMU said when it was asked is another thing."""
    (kept,) = pair.b.state_dir.glob("qemu-*.json")
    truth = kept.read_text()
    facts = json.loads(truth)
    change(facts)
    pair.b.terminate()
    kept.write_text(json.dumps(facts))
    with _restarted(pair):
        yield
    kept.write_text(truth)


@contextlib.contextmanager
def _older_processor(pair: Pair) -> Iterator[None]:
    """A QEMU whose processors have less than their model promises, as on a processor that has not all of it."""
    script = pair.directory / "qemu-on-older-processor"
    script.write_text('#!/bin/bash\nexec qemu-system-x86_64 "${@/%qemu64-v1/qemu64-v1,-cx16,-sse3}"\n')
    script.chmod(0o755)
    with _restarted(pair, qemu_binary=str(script)):
        yield


@contextlib.contextmanager
def _own_storage(pair: Pair, *names: str) -> Iterator[None]:
    """A file system of its own where the disks are, with other files by these names."""
    own = pair.directory / "own"
    own.mkdir(exist_ok=True)
    for path in own.iterdir():
        path.unlink()
    for name in names:
        (own / name).write_bytes((pair.storage / name).read_bytes())
    mount = 'mount --bind "$1" "$2" && shift 2 && exec "$@"'
    with _restarted(pair, "unshare", "--mount", "sh", "-c", mount, "sh", own, pair.storage):
        yield


@contextlib.contextmanager
def _wrong_clock(pair: Pair) -> Iterator[None]:
    directory = pair.directory / "clock"
    directory.mkdir(exist_ok=True)
    text = "import time\nright = time.time\ntime.time = lambda: right() - 90\n"
    (directory / "sitecustomize.py").write_text(text)
    with _restarted(pair, "env", f"PYTHONPATH={directory}"):
        yield


@contextlib.contextmanager
def _twin(pair: Pair, name: str, uuid: str) -> Iterator[None]:
    _as_usual(pair)
    pair.b.relocctl("create", "--paused", pair.domain_file(name, uuid))
    yield
    pair.b.relocctl("destroy", name)


@contextlib.contextmanager
def _without_bridge(pair: Pair) -> Iterator[None]:
    _as_usual(pair)
    ip_batch(pair.b.host.netns, [f"link delete {SECOND_BRIDGE}"])
    yield
    _connect_second_bridge(pair.b)


@contextlib.contextmanager
def _unplugged(pair: Pair) -> Iterator[None]:
    _as_usual(pair)
    ip_batch(pair.b.host.netns, [f"link set {SECOND_UPLINK} nomaster"])
    yield
    ip_batch(pair.b.host.netns, [f"link set {SECOND_UPLINK} master {SECOND_BRIDGE}"])


Provoke = Callable[[Pair], AbstractContextManager[None]]

#: What is done, the check that does not pass then, and a word of what it says.
CASES: dict[str, tuple[Provoke, str, str]] = {
    "too little memory": (lambda pair: _reloaded(pair, dom0_min_mem=1 << 20), "memory", "112 MiB needed"),
    "the name is taken": (lambda pair: _twin(pair, "probe", UUID[:-1] + "0"), "identity", "is named 'probe'"),
    "the UUID is taken": (lambda pair: _twin(pair, "other", UUID), "identity", f"UUID {UUID} exists"),
    "no such bridge": (_without_bridge, "bridges", f"no bridge {SECOND_BRIDGE}"),
    "a bridge that is not connected": (
        _unplugged,
        *("segment", f"{SECOND_BRIDGE} on "),
    ),
    "disks outside of what is allowed": (
        lambda pair: _reloaded(pair, xen_relocation_disk_paths="/srv/elsewhere"),
        *("disks", "lies outside the directories"),
    ),
    "a kernel that is too large": (
        lambda pair: _reloaded(pair, xen_relocation_boot_file_limit=1),
        *("boot-files", "takes at most 1 MiB"),
    ),
    "no room": (lambda pair: _reloaded(pair, xen_relocation_max_incoming=0), "room", "its limit is 0"),
    "another accelerator": (
        lambda pair: _told(pair, lambda facts: facts.update(accelerators=["kvm-vmx"])),
        *("virtualisation", "offers kvm-vmx"),
    ),
    "an older hypervisor": (
        lambda pair: _told(pair, lambda facts: facts.update(version="6.2.0")),
        *("version", "6.2.0 on"),
    ),
    "an unknown machine type": (
        lambda pair: _told(pair, lambda facts: facts.update(machines={"pc-q35-5.2": "pc-q35-5.2"})),
        *("machine", "is unknown to qemu"),
    ),
    "an unknown CPU model": (
        lambda pair: _told(pair, lambda facts: facts.update(cpus={"486-v1": "486-v1"})),
        *("cpu", "is not available"),
    ),
    "a processor that has less": (_older_processor, "cpu", "sse3, cx16"),
    "a disk that is not there": (lambda pair: _own_storage(pair, "1.img"), "disks", "does not exist"),
    "another disk of the same path": (
        lambda pair: _own_storage(pair, "1.img", "2.img"),
        *("disks", "is a file of its own"),
    ),
    "a clock that is wrong": (_wrong_clock, "clock", "behind the domain's host"),
}

#: Two hosts of one machine have one architecture.
NOT_PROVOKED = {"architecture"}


def _checks(pair: Pair) -> list[dict[str, Any]]:
    checks: list[dict[str, Any]] = pair.a.ask("check", domain="probe", host=pair.b.host.address)["checks"]
    return checks


def test_every_check_is_provoked() -> None:
    assert {name for _, name, _ in CASES.values()} == set(RULES) - NOT_PROVOKED


def test_without_any_of_that_all_pass(pair: Pair) -> None:
    reply = pair.a.relocctl("check", "probe", pair.b.host.address)
    assert reply.result["passed"] is True
    assert {check["verdict"] for check in reply.result["checks"]} == {"pass"}
    assert {check["check"] for check in reply.result["checks"]} == set(RULES)


@pytest.mark.parametrize("case", CASES)
def test_it_alone_does_not_pass(pair: Pair, case: str) -> None:
    provoke, name, words = CASES[case]
    with provoke(pair):
        reply = pair.a.relocctl("check", "probe", pair.b.host.address, check=False)
    found = [check for check in reply.result["checks"] if check["verdict"] != "pass"]
    assert {check["check"] for check in found} == {name}, found
    assert any(words in check["text"] for check in found), found
    assert all(check["remedy"] for check in found)
    warns = name in ("version", "clock")
    assert {check["verdict"] for check in found} == {"warn" if warns else "fail"}
    assert (reply.exit_code, reply.result["passed"]) == ((0, True) if warns else (7, False))


# -- what keeps a host from being asked at all ---------------------------------------------------------------------


@contextlib.contextmanager
def _filtered(pair: Pair) -> Iterator[None]:
    _as_usual(pair)
    rules = "add table inet shut; add chain inet shut in { type filter hook input priority 0; }; "
    pair.b.host.run(["nft", rules + "add rule inet shut in tcp dport 8002 drop"])
    yield
    pair.b.host.run(["nft", "delete", "table", "inet", "shut"])


@contextlib.contextmanager
def _stopped(pair: Pair) -> Iterator[None]:
    pair.b.terminate()
    yield


@pytest.mark.parametrize(
    ("provoke", "words"),
    [
        (_filtered, r"did not answer|timed out|no answer"),
        (lambda pair: _reloaded(pair, xen_relocation_hosts_allow="localhost"), "xen-relocation-hosts-allow"),
        (_stopped, "Connection refused"),
    ],
    ids=["a packet filter", "not on the list", "nobody listens"],
)
def test_a_host_that_cannot_be_asked_is_an_error_that_says_why(
    pair: Pair, provoke: Provoke, words: str
) -> None:
    with provoke(pair):
        reply = pair.a.relocctl("check", "probe", pair.b.host.address, check=False)
    assert reply.exit_code == 6
    assert re.search(words, reply.stderr), reply.stderr


def test_and_now_all_pass_again_and_nothing_is_left(pair: Pair) -> None:
    _as_usual(pair)
    assert {check["verdict"] for check in _checks(pair)} == {"pass"}
    pair.b.wait_clean()
    pair.a.wait_clean(keep=[UUID])
