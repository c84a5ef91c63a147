"""What xl is told of a domain: a configuration of its own making, as xl.cfg(5) describes it. Pure.

Nothing of what a peer's xl wrote into a stream is used: a domain that arrives is built by this configuration, too,
which is made of a record that passed relocd's checks. So no script or path of another host's choice gets to xl.
"""

from __future__ import annotations

from typing import Final

from attrs import evolve

from relocd.errors import DriverError
from relocd.model import Accelerator, Disk, DomainConfig, HypervisorFacts, Vif

DRIVER: Final = "xen"
#: Xen gives a guest what the host's processor has; what the guest was told travels in the stream.
CPU: Final = "xen"
PV: Final = "pv"
PVH: Final = "pvh"

#: xl's name for what a domain is (xl.cfg(5), type), and what Xen must offer for it.
NEEDS: Final = {PV: Accelerator.XEN_PV, PVH: Accelerator.XEN_HVM}

#: Words of xen_caps (xl info) and what they mean.
CAPS: Final = {"xen-3.0-x86_64": Accelerator.XEN_PV, "hvm-3.0-x86_64": Accelerator.XEN_HVM}

#: What the names of a domain that arrives, and of one that is leaving, end in, as xl's own migration has it.
INCOMING_SUFFIX: Final = "--incoming"
LEAVING_SUFFIX: Final = "--migratedaway"


def facts_from(info: dict[str, str]) -> HypervisorFacts:
    """What a host offers, by ``xl info``."""
    caps = info.get("xen_caps", "").split()
    accelerators = frozenset(CAPS[word] for word in caps if word in CAPS)
    return HypervisorFacts(
        driver=DRIVER,
        version=info.get("xen_version", ""),
        architecture="x86_64",
        accelerators=accelerators,
        machines=frozenset(machine for machine, need in NEEDS.items() if need in accelerators),
        cpu_models=frozenset({CPU}),
    )


def fixed(config: DomainConfig, facts: HypervisorFacts) -> DomainConfig:
    """The record of a domain that runs here: machine, processor and accelerator are named.

    Raises DriverError for a domain that cannot be built here.
    """
    machine = config.machine or (PVH if PVH in facts.machines else PV)
    if machine not in facts.machines:
        offered = ", ".join(sorted(facts.machines)) or "none"
        raise DriverError(
            f"this Xen offers no machine '{machine}'", hint=f"set 'machine' to one that it has: {offered}"
        )
    if config.cpu not in ("", CPU):
        raise DriverError(f"Xen has no CPU model '{config.cpu}'", hint="leave 'cpu' out")
    if config.kernel is None:
        raise DriverError(
            "a domain of Xen needs a kernel", hint="set 'kernel', and 'ramdisk' if the kernel needs one"
        )
    return evolve(config, hypervisor=DRIVER, machine=machine, cpu=CPU, accelerator=NEEDS[machine])


def xl_config(config: DomainConfig, boot_dir: str, name: str) -> str:
    """The configuration of a domain that is called ``name`` for now; boot files come from ``boot_dir``.

    What becomes of a guest that ends is relocd's to decide, so xl is told to keep its remains.
    """
    lines = [
        f"name = {quoted(name)}",
        f"uuid = {quoted(str(config.uuid))}",
        f"type = {quoted(config.machine)}",
        f"memory = {config.memory_mib}",
        f"vcpus = {config.vcpus}",
        *(f"{key} = {quoted(value)}" for key, value in _boot(config, boot_dir).items()),
        f"disk = [ {', '.join(quoted(disk_spec(disk)) for disk in config.disks)} ]",
        f"vif = [ {', '.join(quoted(vif_spec(vif)) for vif in config.vifs)} ]",
        *(f'{event} = "preserve"' for event in ("on_poweroff", "on_reboot", "on_crash", "on_watchdog")),
    ]
    return "\n".join(lines) + "\n"


def _boot(config: DomainConfig, boot_dir: str) -> dict[str, str]:
    root = f"root={config.root}" if config.root else ""
    words = {
        "kernel": f"{boot_dir}/{config.kernel.sha256}" if config.kernel else "",
        "ramdisk": f"{boot_dir}/{config.ramdisk.sha256}" if config.ramdisk else "",
        "cmdline": " ".join(word for word in (root, config.extra) if word),
    }
    return {key: value for key, value in words.items() if value}


def disk_spec(disk: Disk) -> str:
    """A disk as xl-disk-configuration(5) has it; ``target=`` comes last and takes all the rest."""
    access = "ro" if disk.readonly else "rw"
    return f"format={_plain(disk.format)},vdev={_plain(disk.vdev)},access={access},target={disk.path}"


def vif_spec(vif: Vif) -> str:
    """An interface as xl-network-configuration(5) has it."""
    return f"mac={_plain(vif.mac)},bridge={_plain(vif.bridge)}"


def quoted(text: str) -> str:
    """A string of xl.cfg: in double quotes, a backslash before a quote or backslash. Raises DriverError."""
    if not text.isprintable():
        raise DriverError(f"{text[:40]!r} holds a character that cannot be told to xl")
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _plain(value: str) -> str:
    if "," in value:
        raise DriverError(f"{value[:40]!r} holds a comma, which ends a value for xl")
    return value
