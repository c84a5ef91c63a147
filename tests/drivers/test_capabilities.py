"""What a QEMU can do: read from its answers, kept as JSON, and used to fix a domain's hardware."""

from __future__ import annotations

from uuid import uuid4

import pytest
from attrs import evolve

from relocd.config import AcceleratorChoice, Config
from relocd.drivers.qemu.capabilities import Capabilities, accelerators, cpu_names, machine_names
from relocd.errors import DriverError
from relocd.model import Accelerator, DomainConfig

TCG, VMX, SVM = Accelerator.TCG, Accelerator.KVM_VMX, Accelerator.KVM_SVM
AUTO, KVM = AcceleratorChoice.AUTO, AcceleratorChoice.KVM

#: As QEMU 7.2 answers, shortened.
MACHINES = [
    {"name": "pc-q35-7.2", "alias": "q35"},
    {"name": "pc-q35-7.1"},
    {"name": "pc-i440fx-7.2", "alias": "pc"},
    {"name": "microvm"},
    {"name": "none"},
]
CPUS = [
    {"name": "qemu64", "alias-of": "qemu64-v1", "migration-safe": True, "unavailable-features": []},
    {"name": "qemu64-v1", "migration-safe": True, "unavailable-features": []},
    {"name": "Nehalem-v2", "migration-safe": True, "unavailable-features": ["spec-ctrl"]},
    {"name": "max", "migration-safe": False, "unavailable-features": []},
    {"name": "host", "migration-safe": False, "unavailable-features": ["kvm"]},
]
KNOWN = Capabilities(
    binary="/usr/bin/qemu-system-x86_64",
    version="7.2.22",
    machines=machine_names(MACHINES),
    cpus=cpu_names(CPUS),
    accelerators=(TCG,),
    sandbox=True,
)
DOMAIN = DomainConfig("web", uuid4(), 16)


def test_machines_are_the_pcs_with_their_aliases() -> None:
    assert KNOWN.machines == {
        "pc-q35-7.2": "pc-q35-7.2",
        "pc-q35-7.1": "pc-q35-7.1",
        "pc-i440fx-7.2": "pc-i440fx-7.2",
        "q35": "pc-q35-7.2",
        "pc": "pc-i440fx-7.2",
    }


def test_models_that_depend_on_the_host_or_do_not_run_in_full_are_not_offered() -> None:
    assert KNOWN.cpus == {"qemu64": "qemu64-v1", "qemu64-v1": "qemu64-v1"}


def test_kept_and_read_back() -> None:
    assert Capabilities.from_json(KNOWN.to_json()) == KNOWN
    for damaged in ("", "{}", "[]", '{"accelerators": ["abacus"]}'):
        with pytest.raises((ValueError, TypeError, KeyError, AttributeError)):
            Capabilities.from_json(damaged)


@pytest.mark.parametrize(
    ("version", "words"),
    [
        ("7.2.22", ("-runas", "relocd-qemu")),
        ("9.0.4", ("-runas", "relocd-qemu")),
        ("9.1.0", ("-run-with", "user=relocd-qemu")),
        ("10.0.2", ("-run-with", "user=relocd-qemu")),
    ],
)
def test_how_it_is_told_to_become_a_user(version: str, words: tuple[str, ...]) -> None:
    assert evolve(KNOWN, version=version).run_as("relocd-qemu") == words
    assert evolve(KNOWN, version=version).run_as("") == ()


def test_what_is_open_is_fixed_by_versioned_names() -> None:
    fixed = KNOWN.fix(evolve(DOMAIN, hypervisor="other"), Config())
    assert (fixed.hypervisor, fixed.machine, fixed.cpu, fixed.accelerator) == (
        "qemu", "pc-q35-7.2", "qemu64-v1", TCG,
    )  # fmt: skip
    assert KNOWN.fix(fixed, Config()) == fixed


def test_what_the_administrator_says_comes_first() -> None:
    defaults = Config(qemu_machine="pc", qemu_cpu="qemu64")
    assert KNOWN.fix(DOMAIN, defaults).machine == "pc-i440fx-7.2"
    assert KNOWN.fix(evolve(DOMAIN, machine="pc-q35-7.1"), defaults).machine == "pc-q35-7.1"


@pytest.mark.parametrize(
    ("change", "message", "hint"),
    [
        ({"machine": "pc-q35-9.0"}, "machine type 'pc-q35-9.0'", "pc-q35-7.2"),
        ({"cpu": "host"}, "CPU model 'host'", "qemu64-v1"),
        ({"cpu": "Nehalem-v2"}, "CPU model 'Nehalem-v2'", "qemu64-v1"),
        ({"accelerator": VMX}, "accelerator kvm-vmx", "tcg"),
    ],
)
def test_what_cannot_be_provided_is_named_with_what_can(
    change: dict[str, object], message: str, hint: str
) -> None:
    with pytest.raises(DriverError, match=message) as caught:
        KNOWN.fix(evolve(DOMAIN, **change), Config())  # type: ignore[arg-type]  # fields of several types
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("choice", "flags", "opens", "expected"),
    [
        (AUTO, "fpu vmx sse2", True, (VMX, TCG)),
        (AUTO, "fpu svm sse2", True, (SVM, TCG)),
        (AUTO, "fpu vmx", False, (TCG,)),
        (AUTO, "fpu sse2", True, (TCG,)),  # a /dev/kvm that opens and runs no guest
        (AUTO, "vmx_something", True, (TCG,)),
        (AcceleratorChoice.TCG, "vmx", True, (TCG,)),
        (KVM, "vmx", True, (VMX,)),
    ],
)
def test_accelerators_that_work(
    choice: AcceleratorChoice, flags: str, opens: bool, expected: tuple[Accelerator, ...]
) -> None:
    assert accelerators(choice, cpu_flags=flags, kvm_opens=opens) == expected


@pytest.mark.parametrize(
    ("flags", "opens", "why"), [("sse2", True, "neither vmx nor svm"), ("vmx", False, "opened")]
)
def test_kvm_that_was_asked_for_and_does_not_work(flags: str, opens: bool, why: str) -> None:
    with pytest.raises(DriverError, match=why):
        accelerators(KVM, cpu_flags=flags, kvm_opens=opens)
