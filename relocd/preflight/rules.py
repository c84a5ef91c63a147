"""The table of checks that a target makes before it accepts a domain. All run; none stops the others."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from posixpath import normpath

from relocd.model import Disk, DomainConfig
from relocd.preflight.cpuid import missing
from relocd.preflight.facts import DiskFact, DiskKind, SourceFacts, TargetFacts
from relocd.preflight.result import Check, Verdict
from relocd.preflight.segments import judge_segment, unproven

#: What QEMU needs beside the guest's memory (code, translation cache, device buffers), as measured for small guests
#: under TCG; generous, since running out of memory in the middle of a relocation costs far more.
OVERHEAD_MIB = 96

CLOCK_SKEW_MAX_S = 2.0
"""Clocks that follow time servers agree to much less; what is proposed is heard within some milliseconds."""

_FEATURES_TOLD = 12
_OTHER_DISK = "relocd moves memory, not storage: both hosts must mean the same disk by this path."

#: One finding of a rule; the rule's name is added by the table.
Finding = tuple[Verdict, str, str]

PASS, WARN, FAIL = Verdict.PASS, Verdict.WARN, Verdict.FAIL


def needed_mib(domain: DomainConfig) -> int:
    """Memory to reserve on a host for this domain, in MiB."""
    return domain.memory_mib + OVERHEAD_MIB


def check_target(
    domain: DomainConfig, facts: TargetFacts, source: SourceFacts | None = None
) -> tuple[Check, ...]:
    """Judge one domain against one host; every rule of the table, in its order.

    ``source`` is what the other host says of itself; a comparison with what it did not say is left out.
    """
    source = source or SourceFacts()
    return tuple(
        Check(name, *finding) for name, rule in RULES.items() for finding in rule(domain, facts, source)
    )


def _memory(domain: DomainConfig, facts: TargetFacts, source: SourceFacts) -> Iterator[Finding]:
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


def _architecture(domain: DomainConfig, facts: TargetFacts, source: SourceFacts) -> Iterator[Finding]:
    there = facts.hypervisor.architecture
    if domain.architecture == there:
        yield PASS, f"{there} on both hosts", ""
    else:
        yield (
            FAIL,
            f"the domain is built for {domain.architecture}, {facts.host} is {there}",
            "Choose a target of the same architecture.",
        )


def _virtualisation(domain: DomainConfig, facts: TargetFacts, source: SourceFacts) -> Iterator[Finding]:
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


def _machine(domain: DomainConfig, facts: TargetFacts, source: SourceFacts) -> Iterator[Finding]:
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


def _version(domain: DomainConfig, facts: TargetFacts, source: SourceFacts) -> Iterator[Finding]:
    here, there = facts.hypervisor.version, source.hypervisor_version
    if not there:
        return
    if _number(here) < _number(there):
        yield (
            WARN,
            f"{facts.hypervisor.driver} {here} on {facts.host} is older than {there}, which the domain runs on now",
            "Hypervisors are rarely tested from newer to older: upgrade the target, or try an unimportant domain.",
        )
    else:
        yield PASS, f"{facts.hypervisor.driver} {here} on {facts.host}, {there} where the domain runs", ""


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"[0-9]{1,9}", version)[:3])


def _cpu(domain: DomainConfig, facts: TargetFacts, source: SourceFacts) -> Iterator[Finding]:
    lacking = missing(source.cpu, facts.cpu) if source.cpu and facts.cpu else ()
    if domain.cpu not in facts.hypervisor.cpu_models:
        yield (
            FAIL,
            f"CPU model {domain.cpu} is not available on {facts.host}",
            "Start the domain with a CPU model that all hosts provide ('cpu' in its file).",
        )
    elif lacking:
        named = ", ".join(lacking[:_FEATURES_TOLD]) + (" and more" if len(lacking) > _FEATURES_TOLD else "")
        yield (
            FAIL,
            f"the guest was started with processor features that {domain.cpu} does not have on {facts.host}: {named}",
            "A guest that uses them would crash. Start the domain with a CPU model that is the same on all hosts.",
        )
    elif source.cpu and facts.cpu:
        yield (
            PASS,
            f"CPU model {domain.cpu} on {facts.host} has every feature that the guest was started with",
            "",
        )
    else:
        yield PASS, f"CPU model {domain.cpu} is available on {facts.host}", ""


def _identity(domain: DomainConfig, facts: TargetFacts, source: SourceFacts) -> Iterator[Finding]:
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


def _bridges(domain: DomainConfig, facts: TargetFacts, source: SourceFacts) -> Iterator[Finding]:
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


def _segment(domain: DomainConfig, facts: TargetFacts, source: SourceFacts) -> Iterator[Finding]:
    wanted = sorted(
        {vif.bridge for vif in domain.vifs} & facts.bridges
    )  # one that is missing has its own check
    if facts.segments is None:
        if wanted:
            yield WARN, *unproven(facts.host)
        return
    for bridge in wanted:
        yield judge_segment(facts.host, bridge, facts.segments)


def _disks(domain: DomainConfig, facts: TargetFacts, source: SourceFacts) -> Iterator[Finding]:
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
        elif fact.problem:
            yield (
                FAIL,
                f"on {facts.host} {fact.problem}",
                "Give the domain a disk of its own, as docs/preflight.md says.",
            )
        else:
            yield _same_disk(disk, fact, source.disks.get(disk.path), facts.host)


def _same_disk(disk: Disk, there: DiskFact, here: DiskFact | None, host: str) -> Finding:
    """The same path leads to a disk on both hosts: to the same one?

    Whoever holds a disk locks it. That lock is seen wherever it is the same disk, on a file system of one host for
    certain, over a network if that carries locks. Else size and content must do.
    """
    if here is None:
        return PASS, f"{disk.path} is reachable on {host}", ""
    if min(here.size_bytes, there.size_bytes) >= 0 and here.size_bytes != there.size_bytes:
        return (
            FAIL,
            f"{disk.path} has {here.size_bytes} bytes where the domain runs and {there.size_bytes} on {host}",
            _OTHER_DISK,
        )
    if here.locked and there.locked:
        return (
            PASS,
            f"{disk.path} is the same on {host}: the lock of the domain's hypervisor is seen there",
            "",
        )
    if here.locked and there.locked is False and there.kind is DiskKind.LOCAL:
        return (
            FAIL,
            f"{disk.path} on {host} is a file of its own, not the one that the domain uses",
            _OTHER_DISK,
        )
    pairs = list(zip(here.samples, there.samples, strict=False))
    differing = sum(one != other for one, other in pairs)
    if 2 * differing > len(pairs):
        places = f"at {differing} of {len(pairs)} places"
        return FAIL, f"{disk.path} on {host} has other contents {places}", _OTHER_DISK
    if any(one for one, _ in pairs):
        return PASS, f"{disk.path} has the same size and contents on {host}", ""
    return (
        WARN,
        f"{disk.path} is reachable on {host}; whether it is the same disk cannot be told from its contents",
        "Make sure that both hosts mean the same storage by this path.",
    )


def _boot_files(domain: DomainConfig, facts: TargetFacts, source: SourceFacts) -> Iterator[Finding]:
    large = [file for file in domain.boot_files if file.size_bytes > facts.boot_file_limit_bytes]
    unknown = [file for file in domain.boot_files if not file.sha256 or not file.size_bytes]
    if unknown:
        yield (
            FAIL,
            f"the source does not say what {unknown[0].path} holds",
            "Create the domain anew on the source: its boot files are read then.",
        )
    elif large:
        yield (
            FAIL,
            f"{large[0].path} has {large[0].size_bytes >> 20} MiB, {facts.host} takes at most "
            f"{facts.boot_file_limit_bytes >> 20} MiB",
            f"Raise xen-relocation-boot-file-limit on {facts.host}.",
        )
    else:
        yield PASS, "kernel and ramdisk can come along" if domain.boot_files else "no boot files", ""


def _room(domain: DomainConfig, facts: TargetFacts, source: SourceFacts) -> Iterator[Finding]:
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


def _clock(domain: DomainConfig, facts: TargetFacts, source: SourceFacts) -> Iterator[Finding]:
    if not source.clock_s or not facts.clock_s:
        return
    apart_s = facts.clock_s - source.clock_s
    if abs(apart_s) > CLOCK_SKEW_MAX_S:
        way = "ahead of" if apart_s > 0 else "behind"
        yield (
            WARN,
            f"the clock of {facts.host} is {abs(apart_s):.1f} s {way} the domain's host",
            "Have both follow the same time servers: what the guest reads from its clock device would jump.",
        )
    else:
        yield PASS, f"the clocks agree to within {CLOCK_SKEW_MAX_S:g} s", ""


Rule = Callable[[DomainConfig, TargetFacts, SourceFacts], Iterator[Finding]]

RULES: dict[str, Rule] = {
    "memory": _memory,
    "architecture": _architecture,
    "virtualisation": _virtualisation,
    "version": _version,
    "machine": _machine,
    "cpu": _cpu,
    "identity": _identity,
    "bridges": _bridges,
    "segment": _segment,
    "disks": _disks,
    "boot-files": _boot_files,
    "clock": _clock,
    "room": _room,
}
