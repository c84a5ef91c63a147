"""QEMU's command line for a domain. Pure: a configuration in, an argument vector out.

Source and target must build the same machine, so everything that the guest can see follows from the
configuration alone: machine, CPU model, and one fixed PCI address for each interface and disk. A peer's
configuration reaches QEMU only through :mod:`relocd.drivers.qemu.options`, never a shell.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from attrs import frozen

from relocd.domain.rules import MAX_DISKS, MAX_VIFS
from relocd.drivers.qemu.lifecycle import action_option
from relocd.drivers.qemu.options import digest, option, plain, word
from relocd.errors import DriverError
from relocd.model import Accelerator, BootFile, Disk, DomainConfig, Vif

ARCHITECTURE = "x86_64"

_FIRST_VIF_SLOT = 0x04  # below are the chipsets' own devices (i440fx uses 1 and 2)
_FIRST_DISK_SLOT = _FIRST_VIF_SLOT + MAX_VIFS  # the last one is 0x1b; q35's ICH9 begins at 0x1f

_ACCELERATORS = {
    Accelerator.TCG: "tcg",
    Accelerator.KVM_VMX: "kvm",
    Accelerator.KVM_SVM: "kvm",
}
_NIC_MODELS = {
    "virtio-net": "virtio-net-pci",
    "e1000": "e1000",
    "rtl8139": "rtl8139",
}
_DISK_FORMATS = frozenset({"raw", "qcow2"})
#: The machine families this module knows the PCI layout of: root bus, and the device that offers sleep
#: states.
FAMILIES = {"pc-q35-": ("pcie.0", "ICH9-LPC"), "pc-i440fx-": ("pci.0", "PIIX4_PM")}

#: What QEMU and its stream call the main memory of these machines.
MEMORY_BLOCK = "pc.ram"


@frozen
class Backing:
    """What an image rests on; it is only read."""

    path: str
    format: str
    block_device: bool = False
    direct: bool = True


@frozen
class DiskAccess:
    """How a disk can be opened on this host.

    ``direct``: past the page cache (O_DIRECT), as shared storage needs. ``backing``: what it rests on, nearest first.
    """

    block_device: bool = False
    direct: bool = True
    backing: tuple[Backing, ...] = ()


@frozen
class Launch:
    """What a start of QEMU needs besides the domain's configuration. Paths are absolute.

    ``monitor_fd`` is a listening unix socket that QEMU inherits. ``run_as`` are the words that make QEMU another user
    once it has opened everything, none to leave it what it is. ``taps`` and ``disks`` follow the order of the
    configuration's interfaces and disks.
    """

    binary: str
    boot_dir: str
    monitor_fd: int
    console_socket: str
    console_log: str
    taps: tuple[str, ...] = ()
    disks: tuple[DiskAccess, ...] = ()
    sandbox: bool = True
    run_as: tuple[str, ...] = ()
    incoming: bool = False


def argv(config: DomainConfig, launch: Launch) -> list[str]:
    """The command that starts QEMU, always paused.

    Raises DriverError for what QEMU or this driver cannot do.
    """
    _check(config)
    bus, sleep_device = _family(config.machine)
    return [
        launch.binary,
        *("-nodefaults", "-no-user-config", "-display", "none", "-msg", "timestamp=on"),
        *("-name", option("", guest=config.name, debug_threads=True)),
        *("-uuid", str(config.uuid)),
        *("-machine", word("machine", config.machine)),
        *("-accel", _accelerator(config)),
        *("-cpu", word("CPU model", config.cpu)),
        *("-m", option("", size=f"{memory_bytes(config) // 1024}K")),
        *("-smp", option("", cpus=config.vcpus, sockets=1, cores=config.vcpus, threads=1)),
        # A guest asleep would wake up by being relocated: QEMU does not carry the suspended state over.
        *("-global", f"{sleep_device}.disable_s3=1"),
        *("-rtc", "base=utc"),
        *("-action", action_option(config)),
        *_boot(config, launch.boot_dir),
        *_consoles(launch),
        *("-device", "pvpanic"),
        *_nics(config.vifs, launch.taps, bus),
        *_disks(config.disks, launch.disks, bus),
        *_sandbox(launch.sandbox, changes_user=bool(launch.run_as)),
        *launch.run_as,
        "-S",
        *(("-incoming", "defer") if launch.incoming else ()),
    ]


def _check(config: DomainConfig) -> None:
    if config.architecture != ARCHITECTURE:
        raise DriverError(f"this driver runs {ARCHITECTURE} guests, not {config.architecture}")
    if len(config.vifs) > MAX_VIFS:
        raise DriverError(f"the domain has {len(config.vifs)} network interfaces; {MAX_VIFS} are possible")
    if len(config.disks) > MAX_DISKS:
        raise DriverError(f"the domain has {len(config.disks)} disks; {MAX_DISKS} are possible")


def _family(machine: str) -> tuple[str, str]:
    for prefix, layout in FAMILIES.items():
        if machine.startswith(prefix):
            return layout
    raise DriverError(
        f"machine type {machine!r} is not supported",
        hint="use a versioned PC, such as pc-q35-7.2 or pc-i440fx-7.2",
    )


def memory_bytes(config: DomainConfig) -> int:
    """The size of the guest's memory, under TCG with two pages more than it was promised.

    QEMU before 8.2.3 and 9.0 loses writes of a guest that it emulates *and* migrates: when it takes over the dirty
    bits of a block of memory whose size is a multiple of 64 pages, it forgets to tell the emulator, whose
    later writes to those pages go unnoticed ("physmem: Fix migration dirty bitmap coherency with TCG memory
    access" in QEMU's history). About one relocation in four then left a broken guest. Any other size takes
    the other, correct path.
    """
    pad_bytes = 8192 if config.accelerator is Accelerator.TCG else 0
    return (config.memory_mib << 20) + pad_bytes


def _accelerator(config: DomainConfig) -> str:
    if config.accelerator is None:
        raise DriverError("no accelerator is set for the domain")
    return _ACCELERATORS[config.accelerator]


def _boot(config: DomainConfig, boot_dir: str) -> list[str]:
    if config.kernel is None:
        return []
    words = [f"root={config.root}"] if config.root else []
    words += [config.extra] if config.extra else []
    return [
        *("-kernel", _stored(config.kernel, boot_dir)),
        *(("-initrd", _stored(config.ramdisk, boot_dir)) if config.ramdisk else ()),
        *(("-append", plain("the kernel's command line", " ".join(words))) if words else ()),
    ]


def _stored(file: BootFile, boot_dir: str) -> str:
    return f"{boot_dir}/{digest(file.sha256)}"


def _consoles(launch: Launch) -> list[str]:
    console = option(
        "socket",
        id="console",
        path=launch.console_socket,
        server=True,
        wait=False,
        logfile=launch.console_log,
        logappend=True,
    )
    monitor = option("socket", id="monitor", fd=launch.monitor_fd, server=True, wait=False)
    return [
        *("-chardev", console, "-serial", "chardev:console"),
        *("-chardev", monitor, "-mon", "chardev=monitor,mode=control"),
    ]


def _nics(vifs: tuple[Vif, ...], taps: tuple[str, ...], bus: str) -> list[str]:
    args: list[str] = []
    for index, (vif, tap) in enumerate(zip(vifs, taps, strict=True)):
        model = _NIC_MODELS.get(vif.model)
        if model is None:
            raise DriverError(f"network card model {vif.model!r} is not supported", hint=_one_of(_NIC_MODELS))
        netdev = option("tap", id=f"net{index}", ifname=tap, script="no", downscript="no", vhost=False)
        # Without romfile the guest has no network boot, and no ROM whose size must be the same on both hosts.
        place = {"bus": bus, "addr": hex(_FIRST_VIF_SLOT + index), "romfile": ""}
        device = option(model, id=f"nic{index}", netdev=f"net{index}", mac=vif.mac, **place)
        args += ["-netdev", netdev, "-device", device]
    return args


def _disks(disks: tuple[Disk, ...], access: tuple[DiskAccess, ...], bus: str) -> list[str]:
    args: list[str] = []
    for index, (disk, how) in enumerate(zip(disks, access, strict=True)):
        below = ""
        for depth in range(len(how.backing), 0, -1):  # QEMU must know a node before another one rests on it
            layer = how.backing[depth - 1]
            args += _layer(layer, layer.path, layer.format, f"{index}-{depth}", below, read_only=True)
            below = f"disk{index}-{depth}"
        args += _layer(how, disk.path, disk.format, f"{index}", below, read_only=disk.readonly)
        place = {"bus": bus, "addr": hex(_FIRST_DISK_SLOT + index)}
        args += ["-device", option("virtio-blk-pci", id=f"vd{index}", drive=f"disk{index}", **place)]
    return args


def _layer(
    how: DiskAccess | Backing, path: str, image_format: str, number: str, below: str, *, read_only: bool
) -> list[str]:
    """The nodes of one image. What it rests on is said here, so that QEMU never follows a name in the image."""
    if image_format not in _DISK_FORMATS:
        raise DriverError(f"disk format {image_format!r} is not supported", hint=_one_of(_DISK_FORMATS))
    file = option(
        "",
        driver="host_device" if how.block_device else "file",
        node_name=f"file{number}",
        filename=path,
        read_only=read_only,
        cache__direct=how.direct,
    )
    node: dict[str, str | bool | None] = {"driver": image_format, "node-name": f"disk{number}"}
    node |= {"file": f"file{number}", "read-only": read_only}
    if image_format == "qcow2":
        node["backing"] = below or None  # null, "no backing file", cannot be said in the other notation
    return ["-blockdev", file, "-blockdev", json.dumps(node)]


def _one_of(names: Iterable[str]) -> str:
    return "use one of " + ", ".join(sorted(names))


def _sandbox(available: bool, *, changes_user: bool) -> list[str]:
    if not available:
        return []
    # QEMU has to become its user itself. That one has no right to become another, and no program to start for it.
    elevating = "allow" if changes_user else "deny"
    denied = {"obsolete": "deny", "elevateprivileges": elevating, "spawn": "deny", "resourcecontrol": "deny"}
    return ["-sandbox", option("on", **denied)]
