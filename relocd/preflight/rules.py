"""The table of checks that a target makes before it accepts a domain. All run; none stops the others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from posixpath import normpath

from relocd.model import DomainConfig
from relocd.preflight.facts import TargetFacts
from relocd.preflight.result import Check, Verdict

#: What QEMU needs beside the guest's memory (code, translation cache, device buffers), as measured for small guests
#: under TCG; generous, since running out of memory in the middle of a relocation costs far more.
OVERHEAD_MIB = 96

#: One finding of a rule; the rule's name is added by the table.
Finding = tuple[Verdict, str, str]

PASS, WARN, FAIL = Verdict.PASS, Verdict.WARN, Verdict.FAIL


def needed_mib(domain: DomainConfig) -> int:
    """Memory to reserve on a host for this domain, in MiB."""
    return domain.memory_mib + OVERHEAD_MIB


def check_target(domain: DomainConfig, facts: TargetFacts) -> tuple[Check, ...]:
    """Judge one domain against one host; every rule of the table, in its order."""
    return tuple(Check(name, *finding) for name, rule in RULES.items() for finding in rule(domain, facts))


def _memory(domain: DomainConfig, facts: TargetFacts) -> Iterator[Finding]:
    need = needed_mib(domain)
    free = facts.memory_available_mib - facts.memory_host_reserve_mib - facts.memory_reserved_mib
    sums = (
        f"{facts.memory_available_mib} MiB available, {facts.memory_host_reserve_mib} kept for the host, "
        f"{facts.memory_reserved_mib} promised to other arrivals"
    )
    if need <= free:
        yield PASS, f"{need} MiB needed, {free} MiB free on {facts.host}", ""
    else:
        yield (
            FAIL,
            f"not enough memory on {facts.host}: {need} MiB needed, {max(free, 0)} MiB free ({sums})",
            "Move or shut down another domain there, or lower dom0-min-mem if the host can spare it.",
        )


def _architecture(domain: DomainConfig, facts: TargetFacts) -> Iterator[Finding]:
    there = facts.hypervisor.architecture
    if domain.architecture == there:
        yield PASS, f"{there} on both hosts", ""
    else:
        yield (
            FAIL,
            f"the domain is built for {domain.architecture}, {facts.host} is {there}",
            "Choose a target of the same architecture.",
        )


def _virtualisation(domain: DomainConfig, facts: TargetFacts) -> Iterator[Finding]:
    there = sorted(accelerator.value for accelerator in facts.hypervisor.accelerators)
    if domain.hypervisor != facts.hypervisor.driver:
        yield (
            FAIL,
            f"the domain runs on {domain.hypervisor}, {facts.host} runs {facts.hypervisor.driver}",
            "Choose a target with the same hypervisor.",
        )
    elif domain.accelerator is None or domain.accelerator in facts.hypervisor.accelerators:
        yield PASS, f"{domain.accelerator or 'any'} is available on {facts.host}", ""
    else:
        yield (
            FAIL,
            f"the domain needs {domain.accelerator}, {facts.host} offers {', '.join(there) or 'nothing'}",
            "Choose a target with the same virtualisation extension, or enable it in that host's firmware.",
        )


def _machine(domain: DomainConfig, facts: TargetFacts) -> Iterator[Finding]:
    known = facts.hypervisor.machines
    if domain.machine in known:
        yield PASS, f"{domain.machine} is known to {facts.host}", ""
    else:
        yield (
            FAIL,
            f"machine type {domain.machine} is unknown to {facts.hypervisor.driver} {facts.hypervisor.version} "
            f"on {facts.host}",
            "Upgrade the hypervisor of the target: it must know the machine type that the domain was started with.",
        )


def _cpu(domain: DomainConfig, facts: TargetFacts) -> Iterator[Finding]:
    if domain.cpu in facts.hypervisor.cpu_models:
        yield PASS, f"CPU model {domain.cpu} is available on {facts.host}", ""
    else:
        yield (
            FAIL,
            f"CPU model {domain.cpu} is not available on {facts.host}",
            "Start the domain with a CPU model that all hosts provide ('cpu' in its file).",
        )


def _identity(domain: DomainConfig, facts: TargetFacts) -> Iterator[Finding]:
    holder = facts.domains.get(domain.name)
    if domain.uuid in facts.domains.values():
        yield (
            FAIL,
            f"a domain with UUID {domain.uuid} exists on {facts.host} already",
            f"Look at 'relocctl list' on {facts.host}; the same domain must not be started twice.",
        )
    elif holder is not None:
        yield (
            FAIL,
            f"another domain is named '{domain.name}' on {facts.host} (UUID {holder})",
            "Rename or remove one of the two.",
        )
    else:
        yield PASS, f"name and UUID are free on {facts.host}", ""


def _bridges(domain: DomainConfig, facts: TargetFacts) -> Iterator[Finding]:
    wanted = sorted({vif.bridge for vif in domain.vifs})
    missing = [bridge for bridge in wanted if bridge not in facts.bridges]
    if missing:
        yield (
            FAIL,
            f"no bridge {', '.join(missing)} on {facts.host} (there: {', '.join(sorted(facts.bridges)) or 'none'})",
            f"Create it there: ip link add {missing[0]} type bridge, with the uplink of the same network segment.",
        )
    else:
        yield PASS, f"bridges present: {', '.join(wanted)}" if wanted else "no network interface", ""


def _disks(domain: DomainConfig, facts: TargetFacts) -> Iterator[Finding]:
    if not domain.disks:
        yield PASS, "no disk", ""
    for disk in domain.disks:
        fact = facts.disks.get(disk.path)
        if not within(disk.path, facts.disk_roots):
            yield (
                FAIL,
                f"{disk.path} lies outside the directories that {facts.host} allows for peers' disks",
                f"Add its directory to xen-relocation-disk-paths there (now: {' '.join(facts.disk_roots)}).",
            )
        elif fact is None or not fact.exists:
            yield (
                FAIL,
                f"disk {disk.path} does not exist on {facts.host}",
                "relocd moves memory, not storage: put the disk on storage that both hosts reach by this path.",
            )
        elif not fact.readable or not (fact.writable or disk.readonly):
            yield FAIL, f"disk {disk.path} cannot be opened on {facts.host}", "Check its permissions there."
        else:
            yield PASS, f"{disk.path} is reachable on {facts.host}", ""


def _boot_files(domain: DomainConfig, facts: TargetFacts) -> Iterator[Finding]:
    large = [file for file in domain.boot_files if file.size_bytes > facts.boot_file_limit_bytes]
    if large:
        yield (
            FAIL,
            f"{large[0].path} has {large[0].size_bytes >> 20} MiB, {facts.host} takes at most "
            f"{facts.boot_file_limit_bytes >> 20} MiB",
            f"Raise xen-relocation-boot-file-limit on {facts.host}.",
        )
    else:
        yield PASS, "kernel and ramdisk can come along" if domain.boot_files else "no boot files", ""


def _room(domain: DomainConfig, facts: TargetFacts) -> Iterator[Finding]:
    if facts.incoming < facts.incoming_limit:
        yield PASS, f"{facts.incoming} of {facts.incoming_limit} incoming relocations in use", ""
    else:
        yield (
            FAIL,
            f"{facts.host} receives {facts.incoming} domains already, its limit is {facts.incoming_limit}",
            "Try again when one has arrived, or raise xen-relocation-max-incoming there.",
        )


def within(path: str, roots: tuple[str, ...]) -> bool:
    """Does an absolute path lie below one of the directories, with no way out through ``..``?"""
    clean = normpath(path)
    return path.startswith("/") and any(clean.startswith(normpath(root).rstrip("/") + "/") for root in roots)


RULES: dict[str, Callable[[DomainConfig, TargetFacts], Iterator[Finding]]] = {
    "memory": _memory,
    "architecture": _architecture,
    "virtualisation": _virtualisation,
    "machine": _machine,
    "cpu": _cpu,
    "identity": _identity,
    "bridges": _bridges,
    "disks": _disks,
    "boot-files": _boot_files,
    "room": _room,
}
