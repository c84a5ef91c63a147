"""Real guests between hosts with certificates: nobody notices TLS, and without a proof nothing moves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from relocd.config.model import TlsMode
from tests import certificates
from tests.certificates import OTHER_AUTHORITY
from tests.e2e.conftest import Witness
from tests.link import LaneThief, between
from tests.scene import Scene
from tests.testbed.daemons import RelocdHost

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

PLAIN = {"xen-relocation-tls": "off"}


def secure(host: RelocdHost, *holders: str, **options: Any) -> dict[str, str]:
    """A host's settings for TLS, for its own address unless ``holders`` say otherwise; its files are written."""
    return certificates.secure(host.directory / "tls", *(holders or (host.host.address,)), **options)


@pytest.fixture(autouse=True)
def _certificates(scene: Scene) -> None:
    """Both hosts require TLS at the beginning of each test."""
    for host in (scene.a, scene.b):
        host.reload(secure(host))


def test_live_there_and_offline_back_with_connections_that_live_on(scene: Scene, witness: Witness) -> None:
    with scene.udp() as udp, scene.ssh() as ssh, scene.tcp() as tcp:
        udp.wait_answered()
        for source, target, live in ((scene.a, scene.b, True), (scene.b, scene.a, False)):
            move = scene.move(source, target, udp, live=live)
            assert move.outcome["outcome"] == "completed"
            assert move.outcome["bytes_sent"] > 1 << 20
            assert move.after.follows(move.before)
            assert move.after.bad == 0
            ssh.wait_more(5)
            tcp.wait_more(5)
        assert not ssh.stats().error
        assert not tcp.stats().error
    witness.runs_on_a()


def test_boot_files_come_along(scene: Scene, witness: Witness) -> None:
    for path in scene.b.boot_files():
        path.unlink()
    assert (
        scene.a.relocctl("migrate", "--live", "guest", scene.b.host.address).result["outcome"] == "completed"
    )
    assert len(scene.b.boot_files()) == 2
    scene.b.relocctl("migrate", "--live", "guest", scene.a.host.address)
    witness.runs_on_a()


def refused(scene: Scene) -> str:
    """Try to move the guest: all that is said about why it did not."""
    reply = scene.a.relocctl("migrate", "--live", "guest", scene.b.host.address, check=False)
    assert reply.exit_code == 13, reply
    assert reply.result["outcome"] == "failed"
    assert "relocctl tls" in reply.result["error"] + reply.result["hint"]
    return str(reply.result["error"])


def test_plain_hosts_are_refused_both_ways(scene: Scene, witness: Witness) -> None:
    scene.b.reload(PLAIN)
    assert f"{scene.b.host.address} does not speak TLS" in refused(scene)
    scene.b.reload(secure(scene.b))
    scene.a.reload(PLAIN)
    assert "over TLS only" in refused(scene)
    witness.runs_on_a()


def test_wrong_certificates_are_refused_both_ways(scene: Scene, witness: Witness) -> None:
    cases: dict[str, dict[str, Any]] = {
        "expired": {"expired": True},
        "another authority": {"authority": OTHER_AUTHORITY},
        "not for": {"holder": "192.0.2.1"},
    }
    for host in (scene.a, scene.b):
        for says, options in cases.items():
            holder = options.get("holder", host.host.address)
            more = {key: value for key, value in options.items() if key != "holder"}
            host.reload(secure(host, holder, **more))
            assert says in refused(scene)
        host.reload(secure(host))
    witness.runs_on_a()


def test_a_lane_that_somebody_else_takes_ends_it_and_the_guest_stays(scene: Scene, witness: Witness) -> None:
    with between(scene.a.host, scene.b.host) as place:
        wire = LaneThief(place)
        try:
            reply = scene.a.relocctl("migrate", "--live", "guest", scene.b.host.address, check=False)
        finally:
            wire.close()
    assert reply.exit_code == 8, reply
    assert "could not be encrypted" in reply.result["error"]
    witness.runs_on_a()


def test_a_daemon_that_restarts_in_the_middle_asks_over_tls(scene: Scene, witness: Witness) -> None:
    moving = scene.begin_move(scene.a, scene.b)
    moving.wait_phase("memory")
    scene.b.kill()
    scene.b.start()
    assert moving.finish()[1]["outcome"] == "failed"
    witness.runs_on_a()


def test_what_relocctl_installs_is_taken(scene: Scene, witness: Witness, tmp_path: Path) -> None:
    scene.a.relocctl("tls", "init", "--directory", tmp_path / "ca")
    for host in (scene.a, scene.b):
        bundle, place = tmp_path / f"{host.host.name}.pem", host.directory / "installed"
        issuing = ("tls", "issue", host.host.address, "--directory", tmp_path / "ca", "--output", bundle)
        scene.a.relocctl(*issuing)
        host.relocctl("tls", "install", bundle, "--directory", place)
        host.reload(
            {
                "xen-relocation-tls": TlsMode.REQUIRE.value,
                "xen-relocation-tls-ca": str(place / "ca.pem"),
                "xen-relocation-tls-certificate": str(place / "host.pem"),
                "xen-relocation-tls-key": str(place / "host.key"),
            }
        )
    assert scene.a.relocctl("check", "guest", scene.b.host.address).result["passed"]
    assert f"certificate of {scene.a.host.address}" in scene.a.relocctl("info").result["tls"]
    witness.runs_on_a()
