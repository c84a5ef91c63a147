"""The systemd unit: systemd itself reads it, weighs its sandbox, and nothing that domains need is missing."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

UNIT = Path(__file__).parents[1] / "systemd" / "relocd.service"

MAX_EXPOSURE = 40
"""systemd's exposure level times ten, of at most 100. Most of what is left is root itself, the network,
and the devices and capabilities that starting domains takes. One call of debuggers, pidfd_getfd, counts as all."""

MAX_EXPOSURE_WITH_XEN = 42
"""The same with relocd.service.d/xen.conf."""


def analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run systemd-analyze."""
    return subprocess.run(
        ["systemd-analyze", *arguments], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A file system root in which the unit and the programs that it starts are installed."""
    units = tmp_path / "usr/lib/systemd/system"
    units.mkdir(parents=True)
    shutil.copy(UNIT, units)
    for name in (
        "sysinit.target",
        "basic.target",
        "network-online.target",
        "multi-user.target",
        "shutdown.target",
    ):
        (units / name).write_text("[Unit]\nDescription=a target\n")
    for program in ("usr/bin/relocd", "bin/kill"):
        path = tmp_path / program
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("#!/bin/sh\n")
        path.chmod(0o755)
    return tmp_path


@pytest.fixture
def settings() -> dict[str, list[str]]:
    """The settings of [Service], each with all its values in order."""
    found: dict[str, list[str]] = {}
    for key, value in _assignments("Service"):
        found.setdefault(key, []).append(value)
    return found


def _assignments(section: str) -> Iterator[tuple[str, str]]:
    at = ""
    for line in UNIT.read_text().splitlines():
        if header := re.fullmatch(r"\[(\w+)\]", line):
            at = header[1]
        elif at == section and "=" in line and not line.startswith("#"):
            key, _, value = line.partition("=")
            yield key, value


def test_systemd_finds_nothing_to_complain_about(root: Path) -> None:
    done = analyze("verify", "--man=no", f"--root={root}", "relocd.service")
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_the_check_above_would_notice(root: Path) -> None:
    (root / "usr/bin/relocd").unlink()
    done = analyze("verify", "--man=no", f"--root={root}", "relocd.service")
    assert done.returncode != 0
    assert "/usr/bin/relocd" in done.stderr


def test_the_sandbox_is_as_tight_as_it_was(tmp_path: Path) -> None:
    alone = tmp_path / UNIT.name  # systemd would find what is beside it, too
    shutil.copy(UNIT, alone)
    assert _exposed(alone, MAX_EXPOSURE) == ""


def test_for_xen_it_is_hardly_looser() -> None:
    assert _exposed(UNIT, MAX_EXPOSURE_WITH_XEN) == ""
    assert _exposed(UNIT, MAX_EXPOSURE) != ""  # so what is beside it was found


def _exposed(unit: Path, most: int) -> str:
    """What systemd says if it thinks that more than this is exposed."""
    done = analyze("security", "--offline=true", "--no-pager", f"--threshold={most}", unit)
    return done.stdout.splitlines()[-1] if done.returncode else ""


def test_a_looser_sandbox_would_be_noticed(tmp_path: Path) -> None:
    loose = tmp_path / "relocd.service"
    loose.write_text(re.sub(r"(?m)^(CapabilityBoundingSet|SystemCallFilter)=.*\n", "", UNIT.read_text()))
    assert _exposed(loose, MAX_EXPOSURE) != ""


def test_it_runs_the_program_that_the_package_installs(settings: dict[str, list[str]]) -> None:
    program, *arguments = settings["ExecStart"][0].split()
    assert arguments == ["--config", "/etc/relocd/relocd-config.sxp"]
    setup = configparser.ConfigParser()
    setup.read(UNIT.parents[1] / "setup.cfg")
    scripts = setup["options.entry_points"]["console_scripts"].split("\n")
    assert Path(program).name in [script.split("=")[0].strip() for script in scripts if script]


def test_domains_and_their_sockets_outlive_the_service(settings: dict[str, list[str]]) -> None:
    assert settings["RuntimeDirectory"] == ["relocd"]
    assert settings["RuntimeDirectoryPreserve"] == ["yes"]
    assert settings["OOMPolicy"] == ["continue"]


@pytest.mark.parametrize(
    "setting",
    [
        "PrivateTmp",
        "PrivateDevices",
        "PrivateNetwork",
        "PrivateUsers",
        "ProtectHome",
        "MemoryDenyWriteExecute",
    ],
)
def test_what_would_starve_a_domain_is_not_set(settings: dict[str, list[str]], setting: str) -> None:
    assert setting not in settings


@pytest.mark.parametrize(
    ("setting", "needed"),
    [
        ("CapabilityBoundingSet", {"CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_SETUID", "CAP_SETGID", "CAP_KILL"}),
        ("RestrictAddressFamilies", {"AF_INET", "AF_INET6", "AF_UNIX", "AF_NETLINK", "AF_PACKET"}),
        ("DeviceAllow", {"/dev/kvm", "/dev/net/tun"}),
    ],
)
def test_what_relocd_needs_is_granted(settings: dict[str, list[str]], setting: str, needed: set[str]) -> None:
    assert needed <= {word for value in settings[setting] for word in value.split()}
