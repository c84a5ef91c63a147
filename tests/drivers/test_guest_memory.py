"""Memory for a guest that others write too: nobody can take it away, and nobody pays for what was not written."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from relocd.drivers.base import GuestMemory
from relocd.drivers.qemu.memory import guest_memory
from relocd.drivers.qemu.process import Process, spawn
from relocd.errors import DriverError
from relocd.model import Accelerator, DomainConfig
from tests.reactor import call, run


@pytest.fixture
def memory() -> Iterator[GuestMemory]:
    config = DomainConfig("web", uuid4(), 64, accelerator=Accelerator.TCG)
    memory = guest_memory(config)
    yield memory
    os.close(memory.descriptor)


def test_it_has_the_size_of_the_guests_block_and_takes_no_room(memory: GuestMemory) -> None:
    status = os.fstat(memory.descriptor)
    assert (memory.block, memory.size_bytes) == ("pc.ram", (64 << 20) + 8192)
    assert (status.st_size, status.st_blocks) == (memory.size_bytes, 0)
    assert not os.get_inheritable(memory.descriptor)


@pytest.mark.parametrize("size", [0, 4096, 65 << 20])
def test_whoever_holds_it_cannot_change_its_size(memory: GuestMemory, size: int) -> None:
    with pytest.raises(PermissionError):
        os.ftruncate(memory.descriptor, size)
    with pytest.raises(PermissionError):
        os.pwrite(memory.descriptor, b"x", memory.size_bytes)


def test_what_was_written_counts_as_the_domains_before_it_has_looked_at_it(
    memory: GuestMemory, tmp_path: Path
) -> None:
    """Else the host would set the same memory aside twice, and refuse the next domain."""
    ours, theirs = os.pipe()
    identity = spawn(
        ["/bin/sh", "-c", "read line <&3"], log=tmp_path / "log", descriptors=[ours, memory.descriptor]
    )
    process = call(Process, identity)
    before = process.resident_mib()
    os.pwrite(memory.descriptor, bytes(16 << 20), 0)
    after = process.resident_mib()
    for end in (ours, theirs):
        os.close(end)
    run(process.end(grace_s=5))
    assert 16 <= after - before <= 17
    assert process.resident_mib() == 0


def test_memory_that_cannot_be_is_an_error() -> None:
    config = DomainConfig("web", uuid4(), 1 << 50, accelerator=Accelerator.KVM_VMX)
    with pytest.raises((DriverError, OverflowError)):
        guest_memory(config)
