"""A guest's memory as others can write it: QEMU's own, by way of /proc/PID/mem.

So it stays what QEMU makes of it wherever a guest runs: private, with transparent huge pages, and with nothing behind
pages that were never written. docs/adr/0004 says what else was weighed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from relocd.drivers.base import GuestMemory
from relocd.drivers.qemu.cmdline import MEMORY_BLOCK, memory_bytes
from relocd.drivers.qemu.domain import Domain
from relocd.errors import DriverError

QUESTION = "gpa2hva 0x0"
"""The monitor's command that tells where a PC's memory begins, which is at the guest's address 0 (QEMU,
hmp-commands.hx)."""
_ANSWER = re.compile(r"Host virtual address for 0x0 \((?P<block>[^)]*)\) is 0x(?P<address>[0-9a-f]+)\s*")

#: A line of proc_pid_maps(5) with memory that can be written, is the process's alone and of no file.
_PRIVATE = re.compile(r"(?P<start>[0-9a-f]+)-(?P<end>[0-9a-f]+) rw-p 00000000 00:00 0\s*")


async def guest_memory(domain: Domain) -> GuestMemory:
    """The memory of a domain whose guest has not run yet. The caller owns the descriptor, which can only write.

    Raises DriverError if this host does not let us, or if it is not laid out as expected.
    """
    answer = await domain.monitor.execute("human-monitor-command", {"command-line": QUESTION})
    address, size_bytes = address_in(answer), memory_bytes(domain.config)
    try:
        process = Path(f"/proc/{domain.process.identity.pid}")
        if not private(process.joinpath("maps").read_text().splitlines(), address, size_bytes):
            raise DriverError(f"QEMU has no private memory of {size_bytes} bytes at {address:#x}")
        descriptor = os.open(process / "mem", os.O_WRONLY | os.O_CLOEXEC)
    except OSError as error:
        raise DriverError(f"QEMU's memory cannot be opened: {error.strerror}") from error
    if domain.process.ended.fired:  # else the number was not another process's by now
        os.close(descriptor)
        raise DriverError("QEMU has ended")
    return GuestMemory(MEMORY_BLOCK, address, size_bytes, descriptor)


def address_in(answer: str) -> int:
    """Where the guest's memory begins in QEMU's own, by its answer to QUESTION. Raises DriverError."""
    match = _ANSWER.fullmatch(answer)
    if match is None or match["block"] != MEMORY_BLOCK:
        raise DriverError(f"QEMU does not say where the guest's memory is: {answer.strip()!r:.200}")
    return int(match["address"], 16)


def private(maps: Iterable[str], address: int, size_bytes: int) -> bool:
    """Whether all of this is memory of the process's own, by the lines of its proc_pid_maps(5)."""
    end = address + size_bytes
    for line in maps:
        if match := _PRIVATE.fullmatch(line):
            start, stop = int(match["start"], 16), int(match["end"], 16)
            if start <= address < stop:
                address = stop
    return address >= end
