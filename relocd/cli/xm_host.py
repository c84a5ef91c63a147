"""What xm tells of the host itself: its facts, and its row as the privileged domain.

xm runs on the host it tells of, so what relocd does not say is read here.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path

import psutil

from relocd.cli.client import JsonObject
from relocd.cli.replies import Domain

DOM0_NAME = "Domain-0"
DOM0_REFERENCES = frozenset({DOM0_NAME, "0"})
DOM0_UUID = "00000000-0000-0000-0000-000000000000"

XM_VERSION = (4, 4)
"""The xm whose formats these are; scripts decide by these numbers what to expect."""


def dom0(info: JsonObject, guests: Iterable[Domain]) -> Domain:
    """The host as a domain: the memory and the processor time that no guest has."""
    guests = list(guests)
    total, free = int(info.get("memory_total_mib") or 0), int(info.get("memory_free_mib") or 0)
    times = psutil.cpu_times()
    busy_s = times.user + times.nice + times.system
    return Domain(
        name=DOM0_NAME,
        id=0,
        uuid=DOM0_UUID,
        state="running",
        memory_mib=max(0, total - free - sum(guest.memory_mib for guest in guests)),
        vcpus=_processors(),
        cpu_time_s=max(0.0, busy_s - sum(guest.cpu_time_s for guest in guests)),
        start_time=psutil.boot_time(),
        raw={},
    )


def facts(info: JsonObject) -> list[tuple[str, str]]:
    """What ``xm info`` prints, in xm's order; what only a Xen hypervisor has is left out."""
    system = os.uname()
    cores = psutil.cpu_count(logical=False) or _processors()
    sockets = _sockets()
    accelerators = info.get("accelerators") or []
    return [
        ("host", system.nodename),
        ("release", system.release),
        ("version", system.version),
        ("machine", system.machine),
        ("nr_cpus", str(_processors())),
        ("nr_nodes", str(_nodes())),
        ("cores_per_socket", str(max(1, cores // sockets))),
        ("threads_per_core", str(max(1, _processors() // cores))),
        ("cpu_mhz", f"{_clock_mhz():.0f}"),
        ("virt_caps", "hvm" if any(str(name).startswith("kvm") for name in accelerators) else ""),
        ("total_memory", str(info.get("memory_total_mib", 0))),
        ("free_memory", str(info.get("memory_free_mib", 0))),
        ("xen_major", str(XM_VERSION[0])),
        ("xen_minor", str(XM_VERSION[1])),
        ("xen_extra", f".relocd-{info.get('version', '')}"),
        ("hypervisor", f"{info.get('driver', '')} {info.get('driver_version', '')}".strip()),
        ("xend_config_format", "4"),
    ]


def uptime_s(domain: Domain) -> int | None:
    """Seconds since the domain was started, None where that is not known."""
    return None if domain.start_time is None else max(0, int(time.time() - domain.start_time))


def _processors() -> int:
    return os.cpu_count() or 1


def _clock_mhz() -> float:
    clock = psutil.cpu_freq()
    return clock.current if clock else 0.0


def _nodes() -> int:
    """NUMA nodes; kernels without NUMA have no such directory."""
    return len(list(Path("/sys/devices/system/node").glob("node[0-9]*"))) or 1


def _sockets() -> int:
    """Processor packages, of which every processor names its own."""
    packages = {
        path.read_text()
        for path in Path("/sys/devices/system/cpu").glob("cpu[0-9]*/topology/physical_package_id")
    }
    return len(packages) or 1
