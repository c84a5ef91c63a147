"""A peer's disks are opened only where this host allows it, whatever their names say."""

from __future__ import annotations

from pathlib import Path

import pytest

from relocd.drivers.xen.disks import check_disks
from relocd.errors import DriverError
from relocd.model import Disk


def test_a_disk_in_an_allowed_directory_passes(tmp_path: Path) -> None:
    check_disks([Disk(str(tmp_path / "a.img"), "xvda")], (str(tmp_path),))
    check_disks([Disk(str(tmp_path / "a.qcow2"), "xvda", format="qcow2")], ("/",))


def test_a_link_that_leads_out_is_followed_and_refused(tmp_path: Path) -> None:
    allowed = tmp_path / "allowed"
    allowed.mkdir()
    (allowed / "link").symlink_to("/etc/shadow")
    with pytest.raises(DriverError, match="leads to /etc/shadow"):
        check_disks([Disk(str(allowed / "link"), "xvda")], (str(allowed),))


def test_a_format_that_names_other_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DriverError, match="is qcow2"):
        check_disks([Disk(str(tmp_path / "a.qcow2"), "xvda", format="qcow2")], (str(tmp_path),))
