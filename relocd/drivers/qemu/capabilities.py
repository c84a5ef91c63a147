"""What one QEMU binary can do, and the choice of machine, CPU model and accelerator for a domain. Pure.

A relocated guest must find the same machine on every host, so all three are fixed by versioned names when a
domain is created, and models that depend on the host (``host``, ``max``) are not offered.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from attrs import asdict, evolve, frozen

from relocd.config import AcceleratorChoice, Config
from relocd.drivers.qemu.cmdline import ARCHITECTURE, FAMILIES
from relocd.drivers.qemu.options import option, plain
from relocd.errors import DriverError
from relocd.model import Accelerator, DomainConfig, HypervisorFacts
from relocd.pages.limits import CHANNELS_MAX

DRIVER = "qemu"

#: The CPU model of a domain that names none. TCG: the model QEMU itself falls back to, all of it emulated.
#: KVM: the oldest one that is an x86-64-v2, which today's distributions ask for; every host with VT-x or SVM
#: since 2011 has it.
DEFAULT_CPU = {
    Accelerator.TCG: "qemu64",
    Accelerator.KVM_VMX: "Nehalem",
    Accelerator.KVM_SVM: "Nehalem",
}


@frozen
class Capabilities:
    """Answers of one binary. ``machines`` and ``cpus`` map each name to the versioned name that it stands for."""

    binary: str
    version: str
    machines: dict[str, str]
    cpus: dict[str, str]
    accelerators: tuple[Accelerator, ...]
    sandbox: bool
    multifd_zstd: bool = False

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Capabilities:
        """Read what ``to_json`` wrote. Raises ValueError, TypeError or KeyError for anything else."""
        fields: dict[str, Any] = json.loads(text)
        accelerators = tuple(Accelerator(name) for name in fields.pop("accelerators"))
        fields["multifd_zstd"]  # what an older relocd wrote lacks it, and is asked for anew
        return cls(accelerators=accelerators, **fields)

    def facts(self) -> HypervisorFacts:
        """What preflight compares: versioned names and their aliases."""
        return HypervisorFacts(
            driver=DRIVER,
            version=self.version,
            architecture=ARCHITECTURE,
            accelerators=frozenset(self.accelerators),
            machines=frozenset(self.machines),
            cpu_models=frozenset(self.cpus),
            channels_max=CHANNELS_MAX if self.multifd_zstd else 0,
        )

    def run_as(self, user: str) -> tuple[str, ...]:
        """The options that make QEMU this user once it has opened everything; none for root."""
        if not user:
            return ()
        renamed = tuple(int(part) for part in self.version.split(".")[:2]) >= (9, 1)
        return ("-run-with", option("", user=user)) if renamed else ("-runas", plain("qemu-user", user))

    def fix(self, config: DomainConfig, defaults: Config) -> DomainConfig:
        """Fill in what the configuration leaves open. Raises DriverError for what this binary cannot provide."""
        accelerator = config.accelerator or self.accelerators[0]
        if accelerator not in self.accelerators:
            raise DriverError(
                f"accelerator {accelerator} does not work here",
                hint=f"leave it out, or use one of {', '.join(self.accelerators)}",
            )
        machine = _resolve("machine type", config.machine or defaults.qemu_machine, self.machines)
        cpu = _resolve("CPU model", config.cpu or defaults.qemu_cpu or DEFAULT_CPU[accelerator], self.cpus)
        return evolve(config, hypervisor=DRIVER, accelerator=accelerator, machine=machine, cpu=cpu)


def machine_names(answer: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """From ``query-machines``: the machines this driver can build, by name and alias."""
    names = [entry["name"] for entry in answer if entry["name"].startswith(tuple(FAMILIES))]
    aliases = {
        entry["alias"]: entry["name"] for entry in answer if entry.get("alias") and entry["name"] in names
    }
    return {**{name: name for name in names}, **aliases}


def cpu_names(answer: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """From ``query-cpu-definitions``: the models that run here in full and mean the same on every host."""
    return {
        entry["name"]: entry.get("alias-of", entry["name"])
        for entry in answer
        if entry.get("migration-safe") and not entry.get("unavailable-features")
    }


def accelerators(choice: AcceleratorChoice, *, cpu_flags: str, kvm_opens: bool) -> tuple[Accelerator, ...]:
    """Those that really work, the best one first. Raises DriverError if the one that was asked for does not.

    /dev/kvm may exist and open where the processor cannot run guests: only its flags tell.
    """
    flags = cpu_flags.split()
    kvm = next((name for flag, name in _KVM_FLAGS.items() if flag in flags and kvm_opens), None)
    if choice is AcceleratorChoice.TCG:
        return (Accelerator.TCG,)
    if choice is AcceleratorChoice.KVM and kvm is None:
        reason = "/dev/kvm cannot be opened" if not kvm_opens else "the processor shows neither vmx nor svm"
        raise DriverError(
            f"KVM does not work on this host: {reason}", hint="set qemu-accelerator to auto or tcg"
        )
    if choice is AcceleratorChoice.KVM and kvm is not None:
        return (kvm,)
    return (Accelerator.TCG,) if kvm is None else (kvm, Accelerator.TCG)


_KVM_FLAGS = {"vmx": Accelerator.KVM_VMX, "svm": Accelerator.KVM_SVM}


def _resolve(what: str, name: str, known: Mapping[str, str]) -> str:
    if name not in known:
        raise DriverError(
            f"{what} '{name}' cannot be provided here, or not in the same way on every host",
            hint=f"use one of {', '.join(sorted(set(known.values())))}",
        )
    return known[name]
