"""relocd as the system service of a Xen host: up with it, down with it.

The tests that follow find a host that was rebooted.
"""

from __future__ import annotations

import pytest

from tests.testbed.xen.install import Installed
from tests.xen.scene import XenScene

pytestmark = [pytest.mark.xen, pytest.mark.timeout(1500)]

_JOURNAL = (
    "mkdir -p /var/log/journal && systemd-tmpfiles --create --prefix /var/log/journal && journalctl --flush"
)


def _show(host: Installed, *names: str) -> dict[str, str]:
    """Properties of relocd's unit."""
    words = " ".join(f"--property={name}" for name in names)
    lines = host.host.run(f"systemctl show relocd {words}").splitlines()
    return dict(line.split("=", 1) for line in lines)


def test_it_ends_cleanly_with_the_host_and_starts_with_it(scene: XenScene) -> None:
    scene.start_guest(scene.b, "short", 13)
    scene.b.host.run(_JOURNAL)
    scene.b.host.reboot()
    scene.b.prefer_dom0()
    log = scene.b.host.run("journalctl --boot=-1 --unit=relocd --output=cat --no-pager")
    assert "relocd.service: Deactivated successfully." in log
    assert "Failed with result" not in log
    assert "SIGKILL" not in log
    assert _show(scene.b, "ActiveState", "SubState", "NRestarts") == {
        "ActiveState": "active",
        "SubState": "running",
        "NRestarts": "0",
    }
    # Domains of Xen do not outlive their hypervisor, and it is said so.
    assert scene.b.states() == {}
    assert "it ended while relocd was not running" in scene.b.log()
