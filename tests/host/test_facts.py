"""What is found at a disk's path: kind, size, locks, and samples that tell one disk from another."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relocd.host.facts import disk_fact, disk_facts, file_system
from relocd.model import Disk
from relocd.preflight.facts import DiskKind
from tests.disk import loop_device

MOUNTS = r"""
21 1 254:1 / / rw,relatime - ext4 /dev/root rw
22 21 0:21 / /proc rw,nosuid - proc proc rw
31 21 0:45 / /srv rw,relatime shared:7 master:2 - nfs4 store:/export rw,vers=4.2
32 31 0:46 / /srv/fast\040disks rw,relatime - ceph mon:/ rw
33 21 0:47 / /mnt rw - fuse.glusterfs store:/vol rw
34 33 0:48 / /mnt rw - xfs /dev/sdb rw
""".strip().splitlines()


def nobody(_: str) -> bool | None:
    return None


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/var/x.img", "ext4"),
        ("/srv/x.img", "nfs4"),
        ("/srv", "nfs4"),
        ("/srvx/x.img", "ext4"),
        ("/srv/fast disks/x.img", "ceph"),
        ("/mnt/x.img", "xfs"),  # mounted over another one
    ],
)
def test_the_file_system_is_that_of_the_innermost_mount(path: str, kind: str) -> None:
    assert file_system(MOUNTS, path) == kind


@given(st.lists(st.binary(min_size=1, max_size=3), min_size=2, max_size=2, unique=True))
def test_disks_of_other_content_have_other_samples(
    tmp_path_factory: pytest.TempPathFactory, words: list[bytes]
) -> None:
    directory = tmp_path_factory.mktemp("disks")
    facts = []
    for number, word in enumerate(words):
        path = directory / f"{number}.img"
        path.write_bytes(word.ljust(4, b"\1") * (1 << 16))
        facts.append(disk_fact(str(path), ("/",), nobody))
    first, second = facts
    assert (first.exists, first.readable, first.writable, first.size_bytes) == (True, True, True, 1 << 18)
    assert len(first.samples) == len(second.samples) == 16
    assert all(one != other for one, other in zip(first.samples, second.samples, strict=True))


def test_zeros_are_told_from_contents_and_both_ends_are_looked_at(tmp_path: Path) -> None:
    path = tmp_path / "disk.img"
    with path.open("wb") as file:
        file.truncate(1 << 40)  # sparse
        file.write(b"partition table")
        file.seek((1 << 40) - 1)
        file.write(b"x")
    samples = disk_fact(str(path), ("/",), nobody).samples
    assert [bool(sample) for sample in samples] == [True, *[False] * 14, True]


@pytest.mark.parametrize("size", [0, 1, 4095])
def test_a_disk_too_small_to_sample(tmp_path: Path, size: int) -> None:
    path = tmp_path / "disk.img"
    path.write_bytes(b"x" * size)
    fact = disk_fact(str(path), ("/",), nobody)
    assert (fact.size_bytes, fact.samples) == (size, ())


def test_what_is_no_disk_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    asked: list[str] = []
    for path in (tmp_path, tmp_path / "pipe", Path("/dev/zero")):
        fact = disk_fact(str(path), ("/",), asked.append)
        assert (fact.exists, fact.readable, fact.samples) == (True, False, ())
    assert asked == []


def test_locks_are_asked_for_by_the_real_path_and_only_where_peers_may_look(tmp_path: Path) -> None:
    allowed, secret = tmp_path / "allowed", tmp_path / "secret"
    for directory in (allowed, secret):
        directory.mkdir()
        (directory / "disk.img").write_bytes(b"x" * 8192)
    (allowed / "link.img").symlink_to(allowed / "disk.img")
    (allowed / "out.img").symlink_to(secret / "disk.img")
    asked: list[str] = []
    paths = [str(allowed / "link.img"), str(allowed / "out.img"), str(secret / "disk.img")]
    facts = disk_facts(
        [Disk(path, "xvda") for path in paths], (str(allowed),), lambda path: asked.append(path) is None
    )
    assert asked == [str(allowed / "disk.img")]
    assert {path: fact.exists for path, fact in facts.items()} == {paths[0]: True, paths[1]: False}
    assert facts[paths[0]].locked is True


def test_a_file_of_this_host_is_known_as_such(tmp_path: Path) -> None:
    (tmp_path / "disk.img").write_bytes(b"x")
    assert disk_fact(str(tmp_path / "disk.img"), ("/",), nobody).kind is DiskKind.LOCAL


@pytest.fixture
def device() -> Iterator[str]:
    """A block device of this host."""
    with loop_device() as name:
        yield name


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a block device")
def test_a_device_that_the_host_itself_uses_is_not_for_a_peers_domain(device: str) -> None:
    (fact,) = disk_facts([Disk(device, "xvda")], ("/dev",), nobody).values()
    assert (fact.kind, fact.size_bytes, fact.problem) == (DiskKind.DEVICE, 1 << 20, "")
    held = os.open(device, os.O_RDONLY | os.O_EXCL)  # as mounting does
    (fact,) = disk_facts([Disk(device, "xvda")], ("/dev",), nobody).values()
    os.close(held)
    assert "in use by the host itself" in fact.problem


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a block device")
def test_a_device_is_known_by_the_name_that_it_has_in_dev(device: str) -> None:
    """As /dev/vg0/web leads to /dev/dm-3, which need not be allowed. A name that anybody may give does not count."""
    with (
        tempfile.TemporaryDirectory(dir="/dev", prefix="relocd-vg-") as volumes,
        tempfile.TemporaryDirectory() as srv,
    ):
        for directory in (volumes, srv):
            (Path(directory) / "web").symlink_to(device)
        found = {
            directory: disk_facts([Disk(f"{directory}/web", "xvda")], (directory,), nobody)[
                f"{directory}/web"
            ].exists
            for directory in (volumes, srv)
        }
        assert found == {volumes: True, srv: False}
        outwards = Path(volumes) / "out"
        outwards.symlink_to("/etc/passwd")
        assert not disk_facts([Disk(str(outwards), "xvda")], (volumes,), nobody)[str(outwards)].exists
