"""Memory for a guest that others write too: nobody can take it away, and nobody pays for what was not written."""

from __future__ import annotations

import os
from collections.abc import Iterator
from uuid import uuid4

import pytest

from relocd.drivers.base import GuestMemory
from relocd.drivers.qemu.memory import guest_memory
from relocd.errors import DriverError
from relocd.model import Accelerator, DomainConfig


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


def test_memory_that_cannot_be_is_an_error() -> None:
    config = DomainConfig("web", uuid4(), 1 << 50, accelerator=Accelerator.KVM_VMX)
    with pytest.raises((DriverError, OverflowError)):
        guest_memory(config)
