"""Disks and virtual network interfaces as domain files spell them: in one string each, of xm's kind or xl's.

What a string asks for and cannot have is a ValueError that says so; what it may say without effect is a warning.
Sources: xl-disk-configuration(5), xl-network-configuration(5); for xm, xend's blkif and vif device classes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from ipaddress import ip_address

from relocd.model import Disk, Vif
from relocd.nearest import suggestion

Warn = Callable[[str], None]

DEFAULT_BRIDGE = "xenbr0"
DEFAULT_MODEL = "virtio-net"

_MODELS = {"virtio": "virtio-net", "virtio-net-pci": "virtio-net", "netfront": "virtio-net"}
_ACCESS = {"r": True, "ro": True, "w": False, "rw": False, "w!": False, "!": False}
_LOCAL = ("", "0", "dom0", "domain-0")

_DISK_POSITIONS = ("target", "format", "vdev", "access")
_DISK_KEYS = (*_DISK_POSITIONS, "devtype", "backend", "script")
_DISK_WORDS = ("cdrom",)
_DISK_WITHOUT_MEANING = ("backendtype", "direct-io-safe", "discard", "no-discard")
_TAP = re.compile(r"tap2?:(?:tapdisk:)?(?P<type>[a-z0-9]+):(?P<path>.*)")
_TAP_FORMATS = {"aio": "raw", "sync": "raw", "ram": "raw", "raw": "raw", "qcow2": "qcow2"}

_VIF_KEYS = ("mac", "bridge", "ip", "model")
_VIF_WITHOUT_MEANING = (
    *("script", "vifname", "rate", "type", "backend", "uuid", "accel", "policy", "label"),
    *("devid", "gatewaydev", "netdev", "mtu", "trusted"),
)


def xen_mac(random: bytes) -> str:
    """The MAC address made of three random bytes: of Xen's range, 00:16:3e:00:00:00 to 00:16:3e:7f:ff:ff."""
    first, second, third = random
    return f"00:16:3e:{first & 0x7F:02x}:{second:02x}:{third:02x}"


def read_disk(spec: str, warn: Warn) -> Disk:
    """A disk: ``phy:/dev/x,xvda,w`` or ``/path,raw,xvda,rw`` or ``vdev=xvda,format=raw,target=/path``."""
    parts = [part.strip() for part in spec.split(",")]
    settings = _classic(parts) if re.match("(phy|file|tap2?):", parts[0]) else _positional(parts, warn)
    if settings.get("script"):
        raise ValueError("disk scripts are not run: make the device available on both hosts instead")
    if settings.get("backend", "").lower() not in _LOCAL:
        raise ValueError("only this host can be the backend of a disk")
    vdev, _, kind = settings.get("vdev", "").removeprefix("ioemu:").partition(":")
    cdrom = "cdrom" in (kind, settings.get("devtype"), settings.get("cdrom"))
    access = settings.get("access") or ("ro" if cdrom else "rw")
    if access not in _ACCESS:
        raise ValueError(f"{access!r} is no access to a disk: use ro or rw")
    if not settings.get("target"):
        raise ValueError("the disk names no file or device")
    if not vdev:
        raise ValueError("the disk names no virtual device, such as xvda")
    return Disk(settings["target"], vdev, settings.get("format") or "raw", readonly=_ACCESS[access] or cdrom)


def _classic(parts: list[str]) -> dict[str, str]:
    """xm's form: ``phy:DEVICE,VDEV[,MODE[,BACKEND]]``, and the same with ``file:`` and ``tap:aio:``."""
    if len(parts) > 4:
        raise ValueError("the disk has more than four parts")
    target, disk_format = parts[0], "raw"
    if tap := _TAP.fullmatch(target):
        target, disk_format = tap["path"], _TAP_FORMATS.get(tap["type"], tap["type"])
    else:
        kind, target = target.split(":", 1)
        if kind == "phy" and target and not target.startswith("/"):
            target = f"/dev/{target}"
    names = ("vdev", "access", "backend")
    return {"target": target, "format": disk_format, **dict(zip(names, parts[1:], strict=False))}


def _positional(parts: list[str], warn: Warn) -> dict[str, str]:
    """xl's form: up to four parts by position, or by name, or both."""
    settings: dict[str, str] = {}
    positions = iter(_DISK_POSITIONS)
    for part in parts:
        name, separator, value = part.partition("=")
        if not separator and part in (*_DISK_WORDS, *_DISK_WITHOUT_MEANING):
            name, value = part, part
        elif not (separator and re.fullmatch("[a-z-]+", name)):
            name, value = _next_position(positions), part
        if name in _DISK_WITHOUT_MEANING:
            warn(f"'{name}' has no meaning for a disk here")
            continue
        if name not in (*_DISK_KEYS, *_DISK_WORDS):
            raise ValueError(f"a disk has no '{name[:40]}'. {suggestion(name, _DISK_KEYS)}".rstrip())
        if settings.get(name):
            raise ValueError(f"the disk has two of '{name}'")
        settings[name] = value
    return settings


def _next_position(positions: Iterator[str]) -> str:
    for name in positions:
        return name
    raise ValueError("the disk has more than four parts without a name")


def read_vif(spec: str, warn: Warn, new_mac: Callable[[], str]) -> Vif:
    """A virtual network interface: ``mac=00:16:3e:01:02:03,bridge=xenbr0,ip=192.0.2.7,model=e1000``.

    Each part may be missing; ``new_mac`` gives the MAC address of one that has none.
    """
    settings: dict[str, str] = {}
    for part in filter(None, (part.strip() for part in spec.split(","))):
        name, separator, value = (text.strip() for text in part.partition("="))
        if not separator:
            raise ValueError(f"{part[:40]!r} is not of the form name=value")
        if name in _VIF_WITHOUT_MEANING:
            warn(f"'{name}' has no meaning for a virtual network interface here")
            continue
        if name not in _VIF_KEYS:
            hint = suggestion(name, _VIF_KEYS)
            raise ValueError(f"a virtual network interface has no '{name[:40]}'. {hint}".rstrip())
        if name in settings:
            raise ValueError(f"the virtual network interface has two of '{name}'")
        settings[name] = value
    model = settings.get("model") or DEFAULT_MODEL
    return Vif(
        mac=settings["mac"].lower() if settings.get("mac") else new_mac(),
        bridge=settings.get("bridge") or DEFAULT_BRIDGE,
        model=_MODELS.get(model, model),
        ip=tuple(map(_short, settings.get("ip", "").split())),
    )


def _short(address: str) -> str:
    """The usual short form of an address; what is none is left for the rules to refuse."""
    try:
        return str(ip_address(address))
    except ValueError:
        return address
