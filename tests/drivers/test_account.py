"""The user that QEMU becomes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from relocd.config.model import QEMU_USER
from relocd.drivers.qemu.account import user_for
from relocd.errors import DriverError
from relocd.model import DomainStatus
from tests.contracts.rigs import Host, QemuRig
from tests.reactor import run

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")


def test_which_user_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    assert user_for("nobody") == "nobody"
    assert user_for("root") == ""
    with pytest.raises(DriverError, match="no user 'nosuchuser' for QEMU"):
        user_for("nosuchuser")
    monkeypatch.setattr("relocd.drivers.qemu.account.QEMU_USER", "nosuchuser")
    assert user_for("nosuchuser") == ""  # the default one need not exist
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert user_for("nobody") == ""


def test_the_default_is_no_login_of_a_person() -> None:
    assert QEMU_USER == "relocd-qemu"


@pytest.mark.qemu
@pytest.mark.netns
def test_it_is_nobody_with_nothing_once_it_runs() -> None:
    """Host b of the rig has a user for QEMU, host a has not."""
    rig = QemuRig()
    try:
        assert _status(rig, rig.a, run(rig.a.driver.create(rig.config())))["Uid"] == ["0"] * 4
        facts = _status(rig, rig.b, run(rig.b.driver.create(rig.config())))
    finally:
        rig.close()
    assert facts["Uid"] == facts["Gid"] == ["65534"] * 4
    assert [int(facts[name][0], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")] == [0] * 4
    assert facts["Seccomp"] == ["2"]


def _status(rig: QemuRig, host: Host, domain: DomainStatus) -> dict[str, list[str]]:
    (process,) = rig.processes(host)
    assert str(domain.uuid) in process.cmdline()
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return {key: value.split() for key, value in (line.split(":", 1) for line in lines)}
