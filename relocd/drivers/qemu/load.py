"""What a guest does to its memory: sampled by QEMU, which hashes some pages, waits, and hashes them again.

QEMU knows other ways (``dirty-ring``, ``dirty-bitmap``). They are for KVM: asked for under emulation, QEMU 7.2 does
not refuse but dies. Sampling only reads, in a thread of its own, and works with every accelerator.

How exact it is (QEMU 7.2, emulated, guests that dirty at a set rate): QEMU answers in whole MiB/s, rounded down,
which is made up for by half a MiB/s; what then remains is within a fifth of the truth. It counts pages and not
writes: 200 MB/s over the same 32 MiB look like 32 MiB/s in the first second and 16 MiB/s in two.
"""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any, Final

from relocd.drivers.aio import awaited
from relocd.drivers.qemu.domain import Domain
from relocd.drivers.worker import Worker
from relocd.errors import DriverError
from relocd.model import DomainState, Load

_MIB: Final = 1 << 20
_KIB: Final = 1 << 10

WINDOWS_S: Final = (1, 2)
"""QEMU 7.2 takes whole seconds only."""

SAMPLES: Final = 4096
"""Pages, for a domain of any size. Those of shared memory that nobody touched before take room from then on."""

SAMPLES_PER_GIB_MIN, SAMPLES_PER_GIB_MAX = 128, 16384
"""Bounds of QEMU's (qapi/migration.json, calc-dirty-rate)."""

_ODD_BYTES: Final = 64 * _KIB
"""The guest's memory may be so much larger than it was promised (relocd.drivers.qemu.cmdline)."""

_POLL_S = 0.05
_SPARE_S = 10.0

_RANGE = re.compile(r"([0-9a-f]+)-([0-9a-f]+) ")
_RESIDENT = re.compile(r"Rss: +([0-9]+) kB")


async def measure(domain: Domain, worker: Worker) -> Load:
    """Sample a domain. Raises DriverError if QEMU cannot do it now."""
    in_use_bytes = await worker.run(_in_use_bytes, domain)
    if domain.guest is not DomainState.RUNNING:
        return Load((0, 0), in_use_bytes)
    one, two = [await _dirtied_bytes(domain, seconds) for seconds in WINDOWS_S]
    return Load((one, max(one, two)), in_use_bytes)


async def _dirtied_bytes(domain: Domain, seconds: int) -> int:
    """Memory written to within so many seconds."""
    arguments = {
        "calc-time": seconds,
        "mode": "page-sampling",
        "sample-pages": samples_per_gib(domain.config.memory_mib),
    }
    await domain.monitor.execute("calc-dirty-rate", arguments)
    for _ in range(round((seconds + _SPARE_S) / _POLL_S)):
        await awaited(asyncio.sleep(_POLL_S))
        answer = await domain.monitor.execute("query-dirty-rate")
        if answer.get("status") == "measured":
            return _written_bytes(answer, seconds)
    raise DriverError(f"QEMU of domain '{domain.config.name}' does not finish to measure its dirty rate")


def _written_bytes(answer: dict[str, Any], seconds: int) -> int:
    """From whole MiB/s, rounded down: on average half of one is missing."""
    return round((max(0, int(answer.get("dirty-rate", 0))) + 0.5) * _MIB * seconds)


def samples_per_gib(memory_mib: int) -> int:
    """So that the samples are as many for every size of domain, within QEMU's bounds."""
    return max(SAMPLES_PER_GIB_MIN, min(SAMPLES_PER_GIB_MAX, SAMPLES * 1024 // memory_mib))


def _in_use_bytes(domain: Domain) -> int:
    """How much of the guest's memory the host had to provide; what was never written to is zeros."""
    pid = domain.process.identity.pid
    try:
        smaps = Path(f"/proc/{pid}/smaps").read_text()
    except OSError as error:
        raise DriverError(f"cannot look at the memory of process {pid}: {error.strerror}") from error
    return resident_bytes(smaps, domain.config.memory_mib * _MIB)


def resident_bytes(smaps: str, memory_bytes: int) -> int:
    """The resident part of the mapping that is as large as the guest's memory (proc(5), smaps).

    All of the memory if there is no such mapping.
    """
    size_bytes = 0
    for line in smaps.splitlines():
        if span := _RANGE.match(line):
            size_bytes = int(span[2], 16) - int(span[1], 16)
        elif 0 <= size_bytes - memory_bytes <= _ODD_BYTES and (resident := _RESIDENT.match(line)):
            return min(memory_bytes, int(resident[1]) * _KIB)
    return memory_bytes
