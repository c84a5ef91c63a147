"""Whatever goes wrong before the decision: the domain runs on the source, nothing is left on the target."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator

import pytest

from tests.e2e.conftest import Witness
from tests.link import Wire, between
from tests.scene import GUEST_UUID, Scene
from tests.testbed.daemons import PORT, RelocdHost
from tests.testbed.netns import socket_in
from tests.testbed.network import BRIDGE, ip_batch

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

#: Slow enough that a relocation is still in its memory phase when a test strikes.
SLOW = {"xen-relocation-max-bandwidth": 4}


@pytest.fixture
def slow(scene: Scene) -> Iterator[None]:
    """Host a sends slowly."""
    reload(scene.a, SLOW)
    yield
    reload(scene.a, {})


def reload(host: RelocdHost, settings: dict[str, str | int]) -> None:
    """Change the configuration and have it read again: SIGHUP, then wait for the daemon to say so."""
    seen = host.log_file.read_text().count("reloaded ")
    host.write_config(settings)
    assert host.process is not None
    os.kill(host.process.pid, signal.SIGHUP)
    wait_log(host, "reloaded ", seen + 1)


def wait_log(host: RelocdHost, text: str, count: int = 1) -> None:
    """Return once the log says ``text`` so many times; asking the control socket in between takes its time."""
    for _ in range(100):
        if host.log_file.read_text().count(text) >= count:
            return
        host.relocctl("list")
    raise AssertionError(f"{host.host.name} never logged {text!r}:\n{host.log_file.read_text()[-2000:]}")


def migrate(scene: Scene, domain: str = "guest") -> tuple[int, dict[str, object], str]:
    """Try to move a domain from a to b: exit code, outcome, what a person would read."""
    reply = scene.a.relocctl("migrate", "--live", domain, scene.b.host.address, check=False)
    return reply.exit_code, reply.result, reply.stderr


def test_a_peer_that_is_not_on_the_list(scene: Scene, witness: Witness) -> None:
    reload(scene.b, {"xen-relocation-hosts-allow": "^10\\.99\\..*$"})
    code, outcome, said = migrate(scene)
    assert code == 6
    assert outcome["outcome"] == "failed"
    assert "xen-relocation-hosts-allow" in said
    wait_log(scene.b, "refused a connection from 10.77.0.1")
    reload(scene.b, {})
    witness.runs_on_a()


def test_nobody_listens(scene: Scene, witness: Witness) -> None:
    reply = scene.a.relocctl("migrate", "guest", scene.b.host.address, "--port", "8999", check=False)
    assert reply.exit_code == 6
    assert "Connection refused" in reply.stderr
    said = scene.a.xm("migrate", "-l", "-p", "8999", "guest", scene.b.host.address, check=False)
    assert said.exit_code == 1
    assert "Connection refused" in (said.stdout + said.stderr).splitlines()[0]
    witness.runs_on_a()


def test_a_missing_bridge_and_all_reasons_at_once(scene: Scene, witness: Witness) -> None:
    ip_batch(scene.a.host.netns, ["link add extra0 type bridge", "link set extra0 up"])
    text = scene.domain_file("other", memory_mib=96).read_text()
    path = scene.directory / "bridged.cfg"
    path.write_text(
        text.replace(GUEST_UUID, GUEST_UUID[:-1] + "e").replace(f"bridge={BRIDGE}", "bridge=extra0")
    )
    scene.a.relocctl("create", "--paused", path)
    reload(scene.b, {"dom0-min-mem": 1 << 20})
    code, outcome, said = migrate(scene, "other")
    assert code == 7
    assert {reason["code"] for reason in outcome["reasons"]} == {"memory", "bridges"}  # type: ignore[attr-defined]
    assert "extra0" in said
    assert "MiB needed" in said
    reload(scene.b, {})
    (other,) = scene.a.relocctl("list", "other").result
    assert other["state"] == "paused"
    scene.a.relocctl("destroy", "other")
    ip_batch(scene.a.host.netns, ["link delete extra0"])
    witness.runs_on_a()


def test_a_bit_that_changes_on_its_way(scene: Scene, witness: Witness, slow: None) -> None:
    with between(scene.a.host, scene.b.host) as place:
        wire = Wire(place)
        try:
            moving = scene.begin_move(scene.a, scene.b)
            moving.wait_phase("memory")
            wire.flip()
            code, outcome = moving.finish()
            assert wire.struck.is_set()
        finally:
            wire.close()
    assert code == 8
    assert (outcome["outcome"], outcome["code"]) == ("failed", "stream")
    assert "was damaged on its way: its checksum is wrong" in outcome["error"]
    witness.runs_on_a()


@pytest.mark.parametrize("victim", ["daemon", "carrier", "qemu"])
def test_the_target_is_killed_in_the_middle(scene: Scene, witness: Witness, slow: None, victim: str) -> None:
    moving = scene.begin_move(scene.a, scene.b)
    moving.wait_phase("memory")
    if victim == "daemon":
        scene.b.kill()
    else:
        needle = "relocd.carrier" if victim == "carrier" else "qemu-system"
        (pid,) = [pid for pid, line in scene.b.processes().items() if needle in line]
        os.kill(pid, signal.SIGKILL)
    code, outcome = moving.finish()
    assert code in (6, 8, 9)
    assert outcome["outcome"] == "failed"
    assert outcome["error"]
    if victim == "daemon":
        scene.b.start()
    witness.runs_on_a()


@pytest.mark.parametrize("victim", ["daemon", "carrier"])
def test_the_source_is_killed_in_the_middle(scene: Scene, witness: Witness, slow: None, victim: str) -> None:
    moving = scene.begin_move(scene.a, scene.b)
    moving.wait_phase("memory")
    if victim == "daemon":
        scene.a.kill()
        moving.finish()
        scene.a.start()
    else:
        (pid,) = [pid for pid, line in scene.a.processes().items() if "relocd.carrier" in line]
        os.kill(pid, signal.SIGKILL)
        assert moving.finish()[1]["outcome"] == "failed"
    witness.runs_on_a()


def test_a_stop_of_the_source_daemon_ends_an_undecided_relocation(
    scene: Scene, witness: Witness, slow: None
) -> None:
    moving = scene.begin_move(scene.a, scene.b)
    moving.wait_phase("memory")
    assert scene.a.terminate() == 0
    _, outcome = moving.finish()
    assert outcome["outcome"] == "failed"
    scene.a.start()
    witness.runs_on_a()


def test_one_relocation_of_a_domain_at_a_time(scene: Scene, witness: Witness, slow: None) -> None:
    moving = scene.begin_move(scene.a, scene.b)
    moving.wait_phase("memory")
    code, _, said = migrate(scene)
    assert code == 2, said
    assert "already" in said
    reply = scene.a.relocctl("destroy", "guest", check=False)
    assert reply.exit_code == 2
    assert "being relocated" in reply.stderr
    reload(scene.a, {})
    scene.b.kill()
    moving.finish()
    scene.b.start()
    witness.runs_on_a()


GARBAGE = [
    b"\x00" * 4096,
    b"\xff\xfe garbage \n" * 10,
    b"(" * 100_000,
    b"(hello (software x) (host x) (port 0) (protocol 1 1) (features))\n(propose (relocation",
    b"(lane (relocation 00000000-0000-0000-0000-000000000001) (token ab) (number 0))\n" + os.urandom(5000),
    b"receive\n" + b"LinuxGuestRecord" + os.urandom(1000),
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"",
]


def test_garbage_and_truncated_input_on_the_port_during_a_relocation(scene: Scene, witness: Witness) -> None:
    moving = scene.begin_move(scene.a, scene.b)
    for _ in range(3):
        for data in GARBAGE:
            for host in (scene.a, scene.b):
                with socket_in(scene.client.netns, socket.SOCK_STREAM) as sock:
                    sock.settimeout(20)
                    sock.connect((host.host.address, PORT))
                    sock.sendall(data)
    code, outcome = moving.finish()
    assert (code, outcome["outcome"]) == (0, "completed")
    witness.runs_on_b()
    scene.b.relocctl("migrate", "--live", "guest", scene.a.host.address)
    witness.runs_on_a()


def test_unknown_domains_and_nonsense_have_their_exit_codes(scene: Scene, witness: Witness) -> None:
    assert scene.a.relocctl("migrate", "nobody", scene.b.host.address, check=False).exit_code == 3
    assert scene.a.xm("migrate", "nobody", scene.b.host.address, check=False).exit_code == 3
    reply = scene.a.relocctl("create", scene.domain_file(), check=False)
    assert reply.exit_code == 2
    assert "exists already" in reply.stderr
    broken = scene.directory / "broken.cfg"
    broken.write_text('name = "x"\nmemory = \n')
    reply = scene.a.relocctl("create", broken, check=False)
    assert reply.exit_code == 4
    assert "broken.cfg:2:" in reply.stderr
    witness.runs_on_a()


def test_a_broken_configuration_is_refused_at_start_and_ignored_at_reload(
    scene: Scene, witness: Witness
) -> None:
    good = scene.a.config_file.read_text()
    scene.a.config_file.write_text(good + "(xen-relocation-port")
    assert scene.a.process is not None
    os.kill(scene.a.process.pid, signal.SIGHUP)
    wait_log(scene.a, "was not reloaded")
    assert f"{scene.a.config_file}:" in scene.a.log_file.read_text()
    scene.a.config_file.write_text(good)
    witness.runs_on_a()
