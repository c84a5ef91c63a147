"""A guest's memory that others write: where it is in QEMU, and that it is the guest's."""

from __future__ import annotations

import os
from collections.abc import Iterator
from uuid import UUID

import pytest

from relocd.drivers.base import GuestMemory
from relocd.drivers.qemu.driver import QemuDriver
from relocd.drivers.qemu.memory import address_in, private
from relocd.errors import DriverError
from tests.contracts.rigs import QemuRig
from tests.descriptors import closed_again, open_descriptors
from tests.reactor import call, run

ANSWER = "Host virtual address for 0x0 (pc.ram) is 0x7f2bffe00000\r\n"
PAGE = 4096
MAPS = """\
55d0c0a00000-55d0c0c00000 r--p 00000000 fe:01 1234 /usr/bin/qemu-system-x86_64
55d0c2a00000-55d0c2c00000 rw-p 00000000 00:00 0                          [heap]
7f0000000000-7f0000021000 rw-p 00000000 00:00 0
7f0000021000-7f0004000000 ---p 00000000 00:00 0
7f2bffe00000-7f2c0fe00000 rw-p 00000000 00:00 0
7f2c0fe00000-7f2c0fe02000 rw-p 00000000 00:00 0
7f2c0fe02000-7f2c0fe03000 ---p 00000000 00:00 0
7f3000000000-7f3000100000 rw-s 00000000 00:01 99 /memfd:x (deleted)
""".splitlines()


def test_the_address_is_read_from_the_monitors_answer() -> None:
    assert address_in(ANSWER) == 0x7F2BFFE00000


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "No memory is mapped at address 0x0\r\n",
        ANSWER.replace("pc.ram", "vga.vram"),
        ANSWER * 2,
        "x" * 9999,
    ],
)
def test_any_other_answer_is_an_error(answer: str) -> None:
    with pytest.raises(DriverError, match="does not say") as caught:
        address_in(answer)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("address", "size_bytes", "is_private"),
    [
        (0x7F2BFFE00000, 256 << 20, True),
        (0x7F2BFFE00000, (256 << 20) + 2 * PAGE, True),  # two mappings side by side
        (0x7F2BFFE00000 + PAGE, 1 << 20, True),
        (0x7F2BFFE00000, (256 << 20) + 3 * PAGE, False),  # the guard page
        (0x7F2BFFE00000 - PAGE, 1 << 20, False),
        (0x7F0000021000, 1 << 20, False),  # no access
        (0x7F3000000000, 1 << 20, False),  # shared with others
        (0x55D0C0A00000, PAGE, False),  # of a file
    ],
)
def test_only_memory_of_qemus_own_will_do(address: int, size_bytes: int, is_private: bool) -> None:
    assert private(MAPS, address, size_bytes) is is_private


@pytest.fixture
def rig() -> Iterator[QemuRig]:
    rig = QemuRig()
    yield rig
    rig.close()


def _monitor_reads(driver: QemuDriver, uuid: UUID, address: int) -> str:
    command = {"command-line": f"xp /1gx {address:#x}"}
    return str(run(driver._domains[uuid].monitor.execute("human-monitor-command", command)))


@pytest.mark.qemu
@pytest.mark.netns
def test_what_is_written_is_what_the_guest_has(rig: QemuRig) -> None:
    config = run(rig.a.driver.create(rig.config(), paused=True)).config
    rig.b.copy_boot_files(rig.a)
    incoming = call(rig.b.driver.incoming, config)
    with run(incoming.prepare()):
        memory = call(incoming.memory)
        assert isinstance(memory, GuestMemory)
        assert call(incoming.memory) is None
        assert (memory.block, memory.size_bytes) == ("pc.ram", (config.memory_mib << 20) + 8192)
        assert not os.get_inheritable(memory.descriptor)
        assert isinstance(rig.b.driver, QemuDriver)
        for offset in (
            0,
            5 * PAGE,
            15 << 20,
        ):  # below and above the first MiB, where a PC has more than memory
            os.pwrite(
                memory.descriptor, (0x1122334455667788 + offset).to_bytes(8, "little"), memory.begin + offset
            )
            found = _monitor_reads(rig.b.driver, config.uuid, offset)
            assert found.split(":")[1].strip() == f"{0x1122334455667788 + offset:#018x}"
        with pytest.raises(OSError, match="descriptor"):
            os.pread(memory.descriptor, 8, memory.begin)
        run(incoming.discard())
        assert os.pwrite(memory.descriptor, b"x", memory.begin) == 0  # it is gone, whoever has the number now
        os.close(memory.descriptor)


@pytest.mark.qemu
@pytest.mark.netns
def test_who_does_not_ask_leaves_nothing_open(rig: QemuRig) -> None:
    config = run(rig.a.driver.create(rig.config(), paused=True)).config
    rig.b.copy_boot_files(rig.a)
    before = open_descriptors()
    incoming = call(rig.b.driver.incoming, config)
    run(incoming.prepare()).close()
    run(incoming.discard())
    assert closed_again(before)
