"""Asks a QEMU binary what it can do, once for each state of the binary and of this host's KVM."""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

from attrs import evolve

from relocd.config import AcceleratorChoice, Config
from relocd.drivers.base import DriverPaths
from relocd.drivers.qemu.capabilities import Capabilities, accelerators, cpu_names, machine_names
from relocd.drivers.qemu.options import option
from relocd.drivers.qemu.process import INHERITED_FD, Process, spawn
from relocd.drivers.qemu.qmp import CommandRefused, Monitor, MonitorLost
from relocd.drivers.qemu.sockets import listening
from relocd.drivers.worker import Worker
from relocd.errors import DriverError
from relocd.host.files import write_whole
from relocd.model import Accelerator

Answer = TypeVar("Answer")

_NOBODY = UUID(int=0)
_MULTIFD_ZSTD = "multifd-zstd"
_numbers = itertools.count()
_START_TIMEOUT_S = 20.0


async def probe(config: Config, paths: DriverPaths, worker: Worker) -> Capabilities:
    """Capabilities of the configured binary, from the cache in the state directory if nothing has changed.

    Raises DriverError if there is no such binary, or it does not run.
    """
    binary = await worker.run(shutil.which, config.qemu_binary)
    if binary is None:
        raise DriverError(
            f"there is no {config.qemu_binary}",
            hint="install QEMU, or set qemu-binary in relocd's configuration",
        )
    working = await worker.run(_working_accelerators, config.qemu_accelerator)
    cache = paths.state / f"qemu-{_key(Path(binary), working)}.json"
    known = await worker.run(_cached, cache)
    if known is None:
        known = await _ask(binary, paths, working, worker)
        await worker.run(_remember, cache, known)
    return evolve(known, binary=binary)


def _working_accelerators(choice: AcceleratorChoice) -> tuple[Accelerator, ...]:
    cpuinfo = Path("/proc/cpuinfo").read_text()
    flags = next((line for line in cpuinfo.splitlines() if line.startswith("flags")), "")
    return accelerators(choice, cpu_flags=flags, kvm_opens=_opens("/dev/kvm"))


def _opens(path: str) -> bool:
    try:
        os.close(os.open(path, os.O_RDWR))
    except OSError:
        return False
    return True


def _key(binary: Path, working: tuple[Accelerator, ...]) -> str:
    facts = binary.stat()
    return "-".join([str(facts.st_ino), str(facts.st_mtime_ns), str(facts.st_size), *working])


def _cached(cache: Path) -> Capabilities | None:
    try:
        return Capabilities.from_json(cache.read_text())
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None  # absent or of another version: ask again


def _remember(cache: Path, known: Capabilities) -> None:
    for old in cache.parent.glob("qemu-*.json"):
        old.unlink(missing_ok=True)
    write_whole(cache, known.to_json().encode())


async def _ask(
    binary: str, paths: DriverPaths, working: tuple[Accelerator, ...], worker: Worker
) -> Capabilities:
    """Start QEMU without a machine for each accelerator, and ask."""
    cpus: dict[str, str] = {}
    answers: dict[str, Any] = {}
    for accelerator in reversed(working):
        answers = await _interview(binary, paths, accelerator, worker)
        cpus.update(cpu_names(answers["query-cpu-definitions"]))
    number = answers["query-version"]["qemu"]
    return Capabilities(
        binary=binary,
        version=f"{number['major']}.{number['minor']}.{number['micro']}",
        machines=machine_names(answers["query-machines"]),
        cpus=cpus,
        accelerators=working,
        sandbox=any(entry["option"] == "sandbox" for entry in answers["query-command-line-options"]),
        multifd_zstd=answers[_MULTIFD_ZSTD],
    )


async def _interview(
    binary: str, paths: DriverPaths, accelerator: Accelerator, worker: Worker
) -> dict[str, Any]:
    asked = ("query-version", "query-machines", "query-cpu-definitions", "query-command-line-options")

    async def ask(monitor: Monitor) -> dict[str, Any]:
        answers = {command: await monitor.execute(command) for command in asked}
        return {**answers, _MULTIFD_ZSTD: await _takes_zstd(monitor)}

    options = ["-machine", "none", "-accel", accelerator_name(accelerator)]
    return await interview(binary, options, paths, worker, ask)


async def _takes_zstd(monitor: Monitor) -> bool:
    """Whether it can compress its channels: since 5.0, where it is built with zstd."""
    try:
        await monitor.execute("migrate-set-parameters", {"multifd-compression": "zstd"})
    except CommandRefused:
        return False
    return True


def accelerator_name(accelerator: Accelerator) -> str:
    """As QEMU calls it."""
    return "tcg" if accelerator is Accelerator.TCG else "kvm"


async def interview(
    binary: str,
    options: Sequence[str],
    paths: DriverPaths,
    worker: Worker,
    ask: Callable[[Monitor], Awaitable[Answer]],
) -> Answer:
    """Start a QEMU that is nobody's domain and never runs, ask it something, and end it. Raises DriverError."""
    log = paths.log / "qemu-probe.log"
    socket_path = paths.run / f"probe-{next(_numbers)}.sock"
    argv = [
        *(binary, "-nodefaults", "-no-user-config", "-display", "none", "-S"),
        *("-uuid", str(_NOBODY), *options),
        *("-chardev", option("socket", id="monitor", fd=INHERITED_FD, server=True, wait=False)),
        *("-mon", "chardev=monitor,mode=control"),
    ]
    with listening(socket_path) as listener:
        process = Process(await worker.run(spawn, argv, log=log, descriptors=[listener.fileno()]))
    try:
        monitor = await Monitor.connect(socket_path, name=binary, timeout_s=_START_TIMEOUT_S)
        answer = await ask(monitor)
        await monitor.close()
    except MonitorLost as error:
        raise DriverError(f"{binary} does not run", hint=f"see {log}") from error
    finally:
        process.kill()
        await process.ended.wait()
        socket_path.unlink(missing_ok=True)
    return answer
