"""Hypothesis strategies for the values that everything speaks of."""

from __future__ import annotations

import string
from uuid import UUID

from hypothesis import strategies as st

from relocd.domain import rules
from relocd.model import Accelerator, Action, BootFile, Disk, DomainConfig, Vif

_WORD = string.ascii_letters + string.digits + "_.-"
_PRINTABLE = st.characters(exclude_categories=["C", "Z"]) | st.just(" ")

names = st.text(_WORD + ":+", min_size=1, max_size=64).filter(lambda name: name not in (".", ".."))
words = st.text(_WORD, min_size=1, max_size=64)
texts = st.text(_PRINTABLE, max_size=200)
paths = (
    st.text(_PRINTABLE, min_size=1, max_size=60)
    .map(lambda text: "/" + text.replace(",", "-"))
    .filter(lambda path: ".." not in path.split("/"))
)
uuids = st.uuids().filter(lambda uuid: uuid != UUID(int=0))
macs = (
    st.binary(min_size=6, max_size=6)
    .map(lambda raw: bytes([raw[0] & 0xFE | 2]) + raw[1:])
    .map(lambda raw: raw.hex(":"))
)
bridges = st.text(_WORD, min_size=1, max_size=15).filter(lambda name: name not in (".", ".."))
vdevs = st.builds(
    lambda kind, letter, part: f"{kind}{letter}{part}",
    st.sampled_from(["xvd", "vd", "sd", "hd"]),
    st.sampled_from(string.ascii_lowercase),
    st.sampled_from(["", "1", "15"]),
)
addresses = st.ip_addresses().map(str).filter(rules.is_host_address)
boot_files = st.builds(
    BootFile,
    path=paths,
    sha256=st.just("") | st.binary(min_size=32, max_size=32).map(bytes.hex),
    size_bytes=st.integers(0, 1 << 40),
)
disks = st.builds(
    Disk, path=paths, vdev=vdevs, format=st.sampled_from(rules.DISK_FORMATS), readonly=st.booleans()
)
vifs = st.builds(
    Vif,
    mac=macs,
    bridge=bridges,
    model=st.sampled_from(rules.VIF_MODELS),
    ip=st.lists(addresses, max_size=3).map(tuple),
)


@st.composite
def domain_configs(draw: st.DrawFn) -> DomainConfig:
    """Any domain that the rules allow."""
    kernel = draw(st.none() | boot_files)
    return DomainConfig(
        name=draw(names),
        uuid=draw(uuids),
        memory_mib=draw(st.integers(1, rules.MAX_MEMORY_MIB)),
        vcpus=draw(st.integers(1, rules.MAX_VCPUS)),
        hypervisor=draw(words),
        architecture=draw(words),
        kernel=kernel,
        ramdisk=draw(st.none() | boot_files) if kernel else None,
        root=draw(texts) if kernel else "",
        extra=draw(texts) if kernel else "",
        disks=tuple(draw(st.lists(disks, max_size=3, unique_by=(_path_of, _vdev_of)))),
        vifs=tuple(draw(st.lists(vifs, max_size=3, unique_by=_mac_of))),
        machine=draw(st.just("") | words),
        cpu=draw(st.just("") | words),
        accelerator=draw(st.none() | st.sampled_from(Accelerator)),
        on_poweroff=draw(st.sampled_from(Action)),
        on_reboot=draw(st.sampled_from(Action)),
        on_crash=draw(st.sampled_from(Action)),
    )


def _path_of(disk: Disk) -> str:
    return disk.path


def _vdev_of(disk: Disk) -> str:
    return disk.vdev


def _mac_of(vif: Vif) -> str:
    return vif.mac
