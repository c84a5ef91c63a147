"""Gathers what preflight compares: of this host as a target, and as the source of one of its domains."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from uuid import UUID

from attrs import evolve
from twisted.internet.threads import deferToThread
from twisted.logger import Logger

from relocd.daemon.context import Context
from relocd.errors import DriverError
from relocd.host import facts
from relocd.model import CpuWords, DomainConfig
from relocd.preflight.facts import SegmentFacts, SourceFacts, TargetFacts
from relocd.wire.messages import Propose

_log = Logger()


async def source_facts(context: Context, domain: DomainConfig) -> SourceFacts:
    """This host and a domain as it runs here, for the checks of a peer."""
    roots = ("/",)  # of our own domains; the peer compares only what it allows
    return SourceFacts(
        hypervisor_version=context.driver.facts().version,
        cpu=await _cpu_words(context, domain),
        disks=await deferToThread(facts.disk_facts, domain.disks, roots, context.driver.disk_in_use),
    )


def stamped(proposal: Propose) -> Propose:
    """The proposal with the time of this moment, at which it must be sent."""
    return evolve(proposal, source=evolve(proposal.source, clock_s=time.time()))


async def target_facts(
    context: Context,
    domain: DomainConfig,
    *,
    reserved_mib: Callable[[], int],
    arriving: Callable[[], Mapping[str, UUID]],
    heard_s: float,
    segments: SegmentFacts | None,
) -> TargetFacts:
    """This host, for a domain that was proposed at ``heard_s`` [s since 1970]. ``segments`` is what a probe said.

    ``arriving`` are the names of domains that are being received, ``reserved_mib`` is promised already. Both are
    asked last, and nothing is waited for afterwards: two proposals at a time must not be promised the same.
    """
    roots = context.config.disk_paths
    bridges = await deferToThread(facts.bridges)
    disks = await deferToThread(facts.disk_facts, domain.disks, roots, context.driver.disk_in_use)
    cpu = await _cpu_words(context, domain)
    free_mib = await context.driver.memory_free_mib()
    names = arriving()
    return TargetFacts(
        host=facts.host_name(),
        hypervisor=context.driver.facts(),
        memory_available_mib=facts.memory_available_mib() if free_mib is None else free_mib,
        memory_host_reserve_mib=context.config.dom0_min_mem_mib if free_mib is None else 0,
        memory_reserved_mib=reserved_mib(),
        domains={status.name: status.uuid for status in context.driver.list()} | dict(names),
        bridges=bridges,
        disk_roots=roots,
        disks=disks,
        boot_file_limit_bytes=context.config.boot_file_limit_bytes,
        incoming=len(names),
        incoming_limit=context.config.max_incoming,
        clock_s=heard_s,
        cpu=cpu,
        segments=segments,
    )


async def _cpu_words(context: Context, domain: DomainConfig) -> CpuWords:
    """Empty if it cannot be told: that the domain cannot be built here at all is for other checks to say."""
    known = context.driver.facts()
    if domain.machine not in known.machines or domain.cpu not in known.cpu_models:
        return {}
    if domain.accelerator not in known.accelerators:
        return {}
    try:
        return await context.driver.cpu_words(domain)
    except DriverError as error:
        _log.warn("CPU features of {model} are unknown: {error}", model=domain.cpu, error=error)
        return {}
