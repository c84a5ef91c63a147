"""What a domain may be, whoever describes it: an administrator's file or a peer's record.

Every text of a :class:`~relocd.model.DomainConfig` may end up in an option of a hypervisor, a file name or on
a terminal, so each has a closed form here. A comma, for one, separates the parts of a QEMU option, so no path
may have one.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from ipaddress import ip_address
from uuid import UUID

from attrs import frozen

from relocd.model import BootFile, Disk, DomainConfig, Vif

MAX_MEMORY_MIB = 1024 * 1024
MAX_VCPUS = 255
MAX_DISKS = 16
MAX_VIFS = 8
MAX_ADDRESSES = 16
"""IP addresses of one virtual network interface."""
MAX_PATH_CHARACTERS = 1024
MAX_TEXT_CHARACTERS = 2048
"""Of ``root`` and of ``extra``. Linux on x86 takes a command line of 2048 bytes (COMMAND_LINE_SIZE)."""

DISK_FORMATS = ("raw", "qcow2")
VIF_MODELS = ("virtio-net", "e1000", "rtl8139")

_NAME = re.compile(r"[A-Za-z0-9_.:+-]{1,64}")
_WORD = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_MAC = re.compile(r"[0-9a-f]{2}(?::[0-9a-f]{2}){5}")
BRIDGE = re.compile(r"[A-Za-z0-9_.-]{1,15}")  # IFNAMSIZ is 16 with the final NUL
_VDEV = re.compile(r"(?:xvd|vd|sd|hd)[a-z]{1,2}[0-9]{0,3}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@frozen
class Problem:
    """One thing that is wrong. ``field`` is that of DomainConfig, ``index`` counts in ``disks`` or ``vifs``."""

    field: str
    text: str
    hint: str = ""
    index: int = 0


def problems(config: DomainConfig) -> Iterator[Problem]:
    """Everything about a domain that is not allowed, one by one."""
    yield from _identity(config)
    yield from _hardware(config)
    yield from _boot(config)
    yield from _disks(config.disks)
    yield from _vifs(config.vifs)


def _identity(config: DomainConfig) -> Iterator[Problem]:
    if not _NAME.fullmatch(config.name) or config.name in (".", ".."):
        yield Problem(
            "name",
            f"{config.name!r} cannot be the name of a domain",
            "Use up to 64 letters, digits and any of _ . : + -.",
        )
    if config.uuid == UUID(int=0):
        yield Problem("uuid", "a UUID of zeros is no UUID", "Leave it out to get a new one.")


def _hardware(config: DomainConfig) -> Iterator[Problem]:
    if config.memory_mib > MAX_MEMORY_MIB:
        yield Problem("memory_mib", f"memory is limited to {MAX_MEMORY_MIB} MiB", "The number is in MiB.")
    if config.vcpus > MAX_VCPUS:
        yield Problem("vcpus", f"virtual CPUs are limited to {MAX_VCPUS}")
    words = {"hypervisor": config.hypervisor, "architecture": config.architecture}
    words |= {"machine": config.machine or "any", "cpu": config.cpu or "any"}
    for field, word in words.items():
        if not _WORD.fullmatch(word):
            yield Problem(field, f"{word!r} names no {field}", "Use letters, digits and any of _ . -.")


def _boot(config: DomainConfig) -> Iterator[Problem]:
    for field, file in {"kernel": config.kernel, "ramdisk": config.ramdisk}.items():
        if file is not None:
            yield from _boot_file(field, file)
    texts = {"root": config.root, "extra": config.extra}
    for field, text in texts.items():
        if len(text) > MAX_TEXT_CHARACTERS:
            yield Problem(field, f"{field} is limited to {MAX_TEXT_CHARACTERS} characters")
        if not text.isprintable():
            yield Problem(field, f"{field} holds a character that cannot be printed")
    for field, value in {"ramdisk": config.ramdisk, **texts}.items():
        if value and config.kernel is None:
            yield Problem(
                field, f"{field} means nothing without a kernel", "Name the kernel file: kernel = ..."
            )


def _boot_file(field: str, file: BootFile) -> Iterator[Problem]:
    yield from _path(field, file.path)
    if file.sha256 and not _SHA256.fullmatch(file.sha256):
        yield Problem(field, f"the digest of {field} is not 64 hexadecimal digits")
    if file.size_bytes < 0:
        yield Problem(field, f"the size of {field} is negative")


def _path(field: str, path: str, index: int = 0) -> Iterator[Problem]:
    def problem(why: str, hint: str = "") -> Problem:
        return Problem(field, f"the path {path[:80]!r} {why}", hint, index)

    if not path.startswith("/"):
        yield problem("is not absolute", "Begin it with '/'.")
    if len(path) > MAX_PATH_CHARACTERS:
        yield problem(f"is longer than {MAX_PATH_CHARACTERS} characters")
    if not path.isprintable():
        yield problem("holds a character that cannot be printed")
    if "," in path:
        yield problem("holds a comma", "Rename the file or use a symbolic link: commas end a path.")
    if ".." in path.split("/"):
        yield problem("holds '..'", "Write the path that it leads to.")


def _disks(disks: tuple[Disk, ...]) -> Iterator[Problem]:
    if len(disks) > MAX_DISKS:
        yield Problem("disks", f"more than {MAX_DISKS} disks", index=MAX_DISKS)
    for index, disk in enumerate(disks):
        yield from _path("disks", disk.path, index)
        if not _VDEV.fullmatch(disk.vdev):
            yield Problem("disks", f"{disk.vdev!r} is not a virtual device", "Use xvda, xvdb, ...", index)
        if disk.format not in DISK_FORMATS:
            known = " and ".join(DISK_FORMATS)
            yield Problem("disks", f"disk format {disk.format!r} is not known", f"Known are {known}.", index)
    yield from _twice("disks", "the virtual device", [disk.vdev for disk in disks])
    users = Counter(disk.path for disk in disks)
    for index, disk in enumerate(disks):
        if users[disk.path] > 1 and not disk.readonly:
            yield Problem("disks", f"{disk.path!r} is written, and used by another disk too", index=index)


def _vifs(vifs: tuple[Vif, ...]) -> Iterator[Problem]:
    if len(vifs) > MAX_VIFS:
        yield Problem("vifs", f"more than {MAX_VIFS} virtual network interfaces", index=MAX_VIFS)
    for index, vif in enumerate(vifs):
        yield from _vif(vif, index)
    yield from _twice("vifs", "the MAC address", [vif.mac for vif in vifs])


def _vif(vif: Vif, index: int) -> Iterator[Problem]:
    def problem(text: str, hint: str = "") -> Problem:
        return Problem("vifs", text, hint, index)

    if not _MAC.fullmatch(vif.mac):
        yield problem(f"{vif.mac!r} is not a MAC address", "Write six bytes like 00:16:3e:01:02:03.")
    elif int(vif.mac[:2], 16) & 1 or vif.mac == "00:00:00:00:00:00":
        yield problem(f"{vif.mac} is not the address of one interface", "The first byte must be even.")
    if not BRIDGE.fullmatch(vif.bridge) or vif.bridge in (".", ".."):
        yield problem(f"{vif.bridge!r} cannot be the name of a bridge", "Linux allows 15 characters.")
    if vif.model not in VIF_MODELS:
        yield problem(f"model {vif.model!r} is not known", f"Known are {', '.join(VIF_MODELS)}.")
    if len(vif.ip) > MAX_ADDRESSES:
        yield problem(f"more than {MAX_ADDRESSES} IP addresses")
    for address in vif.ip:
        if not is_host_address(address):
            yield problem(f"{address!r} is not the IP address of a host", "Write it without a prefix length.")


def is_host_address(text: str) -> bool:
    """Whether ``text`` is a unicast IP address in its usual short form, without a zone."""
    try:
        address = ip_address(text)
    except ValueError:
        return False
    return str(address) == text and "%" not in text and not (address.is_multicast or address.is_unspecified)


def _twice(field: str, what: str, values: Iterable[str]) -> Iterator[Problem]:
    seen: Counter[str] = Counter()
    for index, value in enumerate(values):
        seen[value] += 1
        if seen[value] == 2:
            yield Problem(field, f"{what} {value!r} appears twice", index=index)
