"""What an image rests on is found out before QEMU could follow it, and what leads astray is refused."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relocd.errors import DriverError
from relocd.host.facts import disk_facts
from relocd.host.images import MAX_LAYERS, Layer, layers, outside
from relocd.model import Disk
from tests.qcow2 import write_qcow2


def test_a_raw_image_rests_on_nothing_whatever_a_guest_wrote_into_it(tmp_path: Path) -> None:
    image = write_qcow2(tmp_path / "x.img", backing="/etc/shadow", backing_format="raw")
    assert layers(str(image), "raw") == (Layer(str(image), "raw"),)


@pytest.mark.parametrize("version", [2, 3])
def test_a_chain_is_followed_to_its_end(tmp_path: Path, version: int) -> None:
    base = write_qcow2(tmp_path / "base.qcow2", version=version)
    middle = write_qcow2(tmp_path / "m.qcow2", backing="base.qcow2", backing_format="qcow2", version=version)
    top = write_qcow2(tmp_path / "top", backing=str(middle), backing_format="qcow2", version=version)
    assert layers(str(top), "qcow2") == tuple(Layer(str(path), "qcow2") for path in (top, middle, base))


def test_names_are_relative_to_the_image_and_a_raw_end_is_not_looked_into(tmp_path: Path) -> None:
    inner = write_qcow2(tmp_path / "base.img", backing="/etc/shadow", backing_format="raw")
    top = write_qcow2(tmp_path / "top", backing="./base.img", backing_format="raw")
    chain = layers(str(top), "qcow2")
    assert [layer.format for layer in chain] == ["qcow2", "raw"]
    assert Path(chain[1].path).samefile(inner)


@pytest.mark.parametrize(
    "name",
    [
        'json:{"driver":"host_device","filename":"/dev/sda"}',
        "nbd://10.0.0.1/secret",
        "nbd:unix:/run/x.sock",
        "rbd:pool/image",
        "ssh://root@10.0.0.1/etc/shadow",
        "http://169.254.169.254/latest/meta-data",
        "iscsi://10.0.0.1/iqn/0",
        "fat:/etc",
        "fat:rw:/etc",
        "file:/etc/shadow",
        "blkdebug::/etc/shadow",
        "host_device:/dev/sda",
        "a\nb",
    ],
)
def test_what_is_no_path_is_refused(tmp_path: Path, name: str) -> None:
    top = write_qcow2(tmp_path / "top", backing=name, backing_format="raw")
    with pytest.raises(DriverError, match="which is no path"):
        layers(str(top), "qcow2")


def test_a_format_that_is_not_said_is_not_guessed(tmp_path: Path) -> None:
    top = write_qcow2(tmp_path / "top", backing="base.img")
    with pytest.raises(DriverError, match="does not say of which format"):
        layers(str(top), "qcow2")


@pytest.mark.parametrize("said", ["vmdk", "host_device", "vvfat", "luks"])
def test_other_formats_are_refused(tmp_path: Path, said: str) -> None:
    top = write_qcow2(tmp_path / "top", backing="base.img", backing_format=said)
    with pytest.raises(DriverError, match=f"format '{said}'"):
        layers(str(top), "qcow2")


def test_data_in_another_file_is_refused(tmp_path: Path) -> None:
    top = write_qcow2(tmp_path / "top", data_file="/etc/shadow")
    with pytest.raises(DriverError, match="keeps its data in another file"):
        layers(str(top), "qcow2")


def test_a_ring_ends(tmp_path: Path) -> None:
    top = write_qcow2(tmp_path / "ring", backing="ring", backing_format="qcow2")
    with pytest.raises(DriverError, match=f"more than {MAX_LAYERS - 1} images, or on itself"):
        layers(str(top), "qcow2")


@pytest.mark.parametrize(
    "content", [b"", b"QFI", b"QFI\xfb", b"QFI\xfb\0\0\0\3", bytes(200), b"QFI\xfb\0\0\0\x09" + bytes(200)]
)
def test_what_is_no_image_is_said_to_be_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(DriverError, match="is no qcow2 image"):
        layers(str(tmp_path / "x"), "qcow2")


@given(seed=st.integers(0, 2**32), changes=st.integers(1, 20))
def test_damaged_images_are_errors_or_harmless(
    tmp_path_factory: pytest.TempPathFactory, seed: int, changes: int
) -> None:
    directory = tmp_path_factory.mktemp("damaged")
    image = write_qcow2(directory / "x", backing="base.img", backing_format="raw")
    content, chance = bytearray(image.read_bytes()), random.Random(seed)
    for _ in range(changes):
        content[chance.randrange(160)] = chance.randrange(256)
    image.write_bytes(content)
    try:
        chain = layers(str(image), "qcow2")
    except DriverError:
        return
    assert len(chain) <= MAX_LAYERS


def test_links_are_followed_before_the_place_is_judged(tmp_path: Path) -> None:
    inside, secret = tmp_path / "srv", tmp_path / "secret"
    inside.mkdir()
    secret.mkdir()
    (secret / "shadow").write_bytes(b"x")
    (inside / "base.img").symlink_to(secret / "shadow")
    (inside / "door").symlink_to(secret)
    paths = [
        str(inside / "base.img"),
        str(inside / "door/shadow"),
        f"{inside}/../secret/shadow",
        str(inside / "none"),
    ]
    assert list(outside([Layer(path, "raw") for path in paths], (str(inside),))) == paths[:3]


def test_a_peers_disk_that_rests_on_something_else_has_a_problem(tmp_path: Path) -> None:
    inside, secret = tmp_path / "srv", tmp_path / "shadow"
    inside.mkdir()
    secret.write_bytes(b"x" * 8192)
    top = write_qcow2(inside / "top", backing="../shadow", backing_format="raw")
    (fact,) = disk_facts([Disk(str(top), "xvda", "qcow2")], (str(inside),), lambda _: None).values()
    assert fact.exists
    assert "rests on" in fact.problem
    (fact,) = disk_facts([Disk(str(top), "xvda", "raw")], (str(inside),), lambda _: None).values()
    assert fact.problem == ""


@pytest.mark.parametrize("order", [("raw", "qcow2"), ("qcow2", "raw")])
def test_one_path_in_two_formats_is_judged_by_the_worse_one(tmp_path: Path, order: tuple[str, str]) -> None:
    top = write_qcow2(tmp_path / "top", backing="/etc/shadow", backing_format="raw")
    disks = [
        Disk(str(top), f"xvd{letter}", form, readonly=True) for letter, form in zip("ab", order, strict=True)
    ]
    (fact,) = disk_facts(disks, (str(tmp_path),), lambda _: None).values()
    assert "rests on" in fact.problem
