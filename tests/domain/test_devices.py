"""Disks and virtual network interfaces in domain files."""

from __future__ import annotations

import contextlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relocd.domain.devices import read_disk, read_vif, xen_mac
from relocd.model import Disk, Vif

NEW_MAC = "00:16:3e:11:22:33"


def disk(spec: str) -> tuple[Disk, list[str]]:
    warnings: list[str] = []
    return read_disk(spec, warnings.append), warnings


def vif(spec: str) -> tuple[Vif, list[str]]:
    warnings: list[str] = []
    return read_vif(spec, warnings.append, lambda: NEW_MAC), warnings


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("phy:/dev/vg0/web,xvda,w", Disk("/dev/vg0/web", "xvda")),
        ("phy:vg0/web,xvda1,w", Disk("/dev/vg0/web", "xvda1")),
        ("phy:/dev/x,hda,r", Disk("/dev/x", "hda", readonly=True)),
        ("phy:/dev/x,hda,w!", Disk("/dev/x", "hda")),
        ("phy:/dev/x,hda", Disk("/dev/x", "hda")),
        ("phy:/dev/x,hda,w,0", Disk("/dev/x", "hda")),
        ("file:/srv/web.img,xvda,w", Disk("/srv/web.img", "xvda")),
        ("file:/srv/cd.iso,hdc:cdrom,r", Disk("/srv/cd.iso", "hdc", readonly=True)),
        ("file:/srv/cd.iso,hdc:cdrom,w", Disk("/srv/cd.iso", "hdc", readonly=True)),
        ("file:/srv/web.img,ioemu:hda,w", Disk("/srv/web.img", "hda")),
        ("tap:aio:/srv/web.img,xvda,w", Disk("/srv/web.img", "xvda")),
        ("tap2:tapdisk:aio:/srv/web.img,xvda,w", Disk("/srv/web.img", "xvda")),
        ("tap:qcow2:/srv/web.img,xvda,w", Disk("/srv/web.img", "xvda", "qcow2")),
        ("/dev/vg0/web,raw,xvda,rw", Disk("/dev/vg0/web", "xvda")),
        ("/dev/vg0/web,,xvda", Disk("/dev/vg0/web", "xvda")),
        (" /dev/vg0/web , qcow2 , xvda , ro ", Disk("/dev/vg0/web", "xvda", "qcow2", readonly=True)),
        ("format=raw, vdev=xvda, access=rw, target=/dev/vg0/web", Disk("/dev/vg0/web", "xvda")),
        ("vdev=xvda,/dev/vg0/web,raw", Disk("/dev/vg0/web", "xvda")),
        ("/srv/cd.iso,raw,hdc,devtype=cdrom", Disk("/srv/cd.iso", "hdc", readonly=True)),
        ("/srv/cd.iso,,hdc,cdrom", Disk("/srv/cd.iso", "hdc", readonly=True)),
        ("/srv/a=b.img,raw,xvda", Disk("/srv/a=b.img", "xvda")),
        ("backend=dom0,vdev=xvda,target=/a", Disk("/a", "xvda")),
    ],
)
def test_disks(spec: str, expected: Disk) -> None:
    assert disk(spec) == (expected, [])


@pytest.mark.parametrize("word", ["backendtype=phy", "direct-io-safe", "discard", "no-discard"])
def test_what_has_no_meaning_for_a_disk(word: str) -> None:
    name = word.partition("=")[0]
    assert disk(f"/a,raw,xvda,{word}") == (Disk("/a", "xvda"), [f"'{name}' has no meaning for a disk here"])


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ("", "names no file or device"),
        (",hdc:cdrom,r", "names no file or device"),
        ("phy:,xvda,w", "names no file or device"),
        ("phy:/dev/x", "names no virtual device"),
        ("/dev/x,raw", "names no virtual device"),
        ("phy:/dev/x,xvda,x", "'x' is no access to a disk"),
        ("phy:/dev/x,xvda,w,storage", "only this host can be the backend"),
        ("backend=storage,vdev=xvda,target=/a", "only this host can be the backend"),
        ("script=block-iscsi,vdev=xvda,target=iqn", "scripts are not run"),
        ("vdev=xvda,fromat=raw,target=/a", "a disk has no 'fromat'. Did you mean 'format'?"),
        ("vdev=xvda,vdev=xvdb,target=/a", "two of 'vdev'"),
        ("/a,raw,xvda,rw,more", "more than four parts"),
        ("phy:/a,xvda,w,0,more", "more than four parts"),
    ],
)
def test_what_is_no_disk(spec: str, reason: str) -> None:
    with pytest.raises(ValueError, match=re.escape(reason)):
        disk(spec)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("", Vif(NEW_MAC, "xenbr0")),
        ("mac=00:16:3E:00:00:0A", Vif("00:16:3e:00:00:0a", "xenbr0")),
        ("bridge=br1, mac=00:16:3e:00:00:01", Vif("00:16:3e:00:00:01", "br1")),
        ("model=e1000", Vif(NEW_MAC, "xenbr0", "e1000")),
        ("model=virtio", Vif(NEW_MAC, "xenbr0")),
        ("ip=192.0.2.7", Vif(NEW_MAC, "xenbr0", ip=("192.0.2.7",))),
        ("ip=192.0.2.7 2001:DB8:0::7", Vif(NEW_MAC, "xenbr0", ip=("192.0.2.7", "2001:db8::7"))),
        ("mac=,bridge=,ip=,model=,", Vif(NEW_MAC, "xenbr0")),
    ],
)
def test_vifs(spec: str, expected: Vif) -> None:
    assert vif(spec) == (expected, [])


@pytest.mark.parametrize("name", ["script", "vifname", "rate", "type", "backend", "mtu"])
def test_what_has_no_meaning_for_a_vif(name: str) -> None:
    found, warnings = vif(f"{name}=x,bridge=br1")
    assert found == Vif(NEW_MAC, "br1")
    assert warnings == [f"'{name}' has no meaning for a virtual network interface here"]


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ("xenbr0", "'xenbr0' is not of the form name=value"),
        ("brigde=br1", "a virtual network interface has no 'brigde'. Did you mean 'bridge'?"),
        ("bridge=a,bridge=b", "two of 'bridge'"),
    ],
)
def test_what_is_no_vif(spec: str, reason: str) -> None:
    with pytest.raises(ValueError, match=re.escape(reason)):
        vif(spec)


@given(st.binary(min_size=3, max_size=3))
def test_macs_are_of_xens_range(random: bytes) -> None:
    mac = xen_mac(random)
    assert re.fullmatch("00:16:3e:[0-7][0-9a-f]:[0-9a-f]{2}:[0-9a-f]{2}", mac)
    assert mac.endswith(random[1:].hex(":"))


@given(st.text(st.sampled_from("phy:file,=/abxvda w!\n")) | st.text())
def test_any_text_is_a_device_or_a_value_error(text: str) -> None:
    with contextlib.suppress(ValueError):
        disk(text)
    with contextlib.suppress(ValueError):
        vif(text)
