"""What CPUID tells a guest: asked from the QEMU that it runs in, or from one that is started just for the question.

QEMU compares neither CPU models nor features when a domain arrives; a guest that finds one gone crashes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from relocd.drivers.base import DriverPaths
from relocd.drivers.qemu.probe import accelerator_name, interview
from relocd.drivers.qemu.qmp import Monitor
from relocd.drivers.worker import Worker
from relocd.model import Accelerator, CpuWords, DomainConfig

_LITTLE_MEMORY = "16M"


async def words(monitor: Monitor) -> CpuWords:
    """Of the first virtual processor; all of a domain are alike."""
    (first, *_) = await monitor.execute("query-cpus-fast")
    answer = await monitor.execute("qom-get", {"path": first["qom-path"], "property": "feature-words"})
    return read_words(answer)


def read_words(answer: Sequence[Mapping[str, Any]]) -> CpuWords:
    """From QEMU's X86CPUFeatureWordInfo (qapi/machine-target.json)."""
    return {_name(word): int(word["features"]) for word in answer}


def _name(word: Mapping[str, Any]) -> str:
    leaf, part = word["cpuid-input-eax"], word.get("cpuid-input-ecx", 0)
    return f"{leaf:x}.{part:x}.{word['cpuid-register'].lower()}"


async def offered(config: DomainConfig, binary: str, paths: DriverPaths, worker: Worker) -> CpuWords:
    """What a domain of this machine type and CPU model would find on this host. Raises DriverError."""
    accelerator = accelerator_name(config.accelerator or Accelerator.TCG)
    options = ["-machine", config.machine, "-accel", accelerator, "-cpu", config.cpu, "-m", _LITTLE_MEMORY]
    return await interview(binary, options, paths, worker, words)
