"""The target's carrier writes pages into the guest's memory, and only there."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relocd.carrier import control
from relocd.carrier.memory import MemoryFile
from relocd.errors import DriverError
from tests.carrier.carriers import (
    Carrier,
    known_to_both,
    pair,
    read_to_end,
    stream_pair,
    tcp_pair,
    write_and_close,
)
from tests.carrier.test_flow import mixed
from tests.pages.test_placement import loaded, placed

PAGE = 4096
SIZE = 256 * PAGE


def memory_of(size_bytes: int) -> int:
    descriptor = os.memfd_create("guest")
    os.ftruncate(descriptor, size_bytes)
    return descriptor


@pytest.fixture
def descriptor() -> Iterator[int]:
    descriptor = memory_of(SIZE)
    yield descriptor
    os.close(descriptor)


def content(descriptor: int) -> bytes:
    return os.pread(descriptor, SIZE, 0)


def test_rows_are_written_where_they_belong(descriptor: int) -> None:
    rows = np.arange(6, dtype=np.uint8).repeat(PAGE).reshape(6, PAGE)
    memory = MemoryFile(descriptor, 0, SIZE)
    memory.write(3 * PAGE, rows[2:4])
    memory.write(9 * PAGE, rows[1::2][:2])  # rows with gaps between them
    found = content(descriptor)
    assert [found[number * PAGE] for number in range(12)] == [0, 0, 0, 2, 3, 0, 0, 0, 0, 1, 3, 0]


def test_clearing_makes_zeros(descriptor: int) -> None:
    memory = MemoryFile(descriptor, 0, SIZE)
    for first in (0, 5, 6, 200, 255):
        memory.write(first * PAGE, np.full((1, PAGE), 7, np.uint8))
    memory.clear(5 * PAGE, 200 * PAGE)
    found = content(descriptor)
    assert [number for number in range(256) if found[number * PAGE]] == [0, 255]
    memory.clear(0, SIZE)
    assert content(descriptor) == bytes(SIZE)


@pytest.mark.parametrize("begin", [0, 3 * PAGE, 1 << 33])
@given(data=st.data())
def test_memory_is_a_part_of_the_file_and_all_of_it_can_be_written(begin: int, data: st.DataObject) -> None:
    """Also the last pages, which go one by one."""
    first = data.draw(st.integers(0, 255))
    count = data.draw(st.integers(1, 256 - first))
    with open(os.memfd_create("guest"), "r+b", buffering=0) as file:  # noqa: PTH123 - it has no path
        os.ftruncate(file.fileno(), begin + SIZE + PAGE)
        memory = MemoryFile(file.fileno(), begin, SIZE)
        rows = np.random.default_rng(count).integers(1, 256, (count, PAGE), np.uint8)
        memory.write(first * PAGE, rows)
        found = os.pread(file.fileno(), SIZE + PAGE, begin)
        assert found == bytes(first * PAGE) + rows.tobytes() + bytes(len(found) - (first + count) * PAGE)
        memory.clear(first * PAGE, count * PAGE)
        assert not any(os.pread(file.fileno(), SIZE + PAGE, begin))


def test_memory_that_cannot_be_written_is_an_error(descriptor: int) -> None:
    reading = os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY)
    with pytest.raises(DriverError, match=os.strerror(errno.EBADF)):
        MemoryFile(reading, 0, SIZE).write(0, np.ones((1, PAGE), np.uint8))
    os.close(reading)


@pytest.mark.parametrize(("lanes", "compression"), [(1, "none"), (2, "zstd"), (3, "auto")])
def test_pages_go_to_memory_and_the_rest_to_the_hypervisor(lanes: int, compression: str) -> None:
    stream = mixed(2000)
    expected = loaded(stream)["pc.ram"]
    _, store, rest = placed([stream], len(expected))
    guest = memory_of(len(expected))
    with pair() as both:
        both.connect(lanes, compression=compression)
        both.expect_files()
        both.target.tell(control.Memory("pc.ram", 0, len(expected)), os.dup(guest))
        both.start()
        write_and_close(both.out, [stream])
        assert read_to_end(both.back) == rest
        sent, received = both.expect_end()
    assert os.pread(guest, len(expected), 0) == bytes(expected) == bytes(store.bytes)
    os.close(guest)
    assert sent.totals == received.totals  # the digest is of what was decoded, wherever it went
    assert sent.totals.stream_bytes == len(stream)
    assert known_to_both(sent.counters) == known_to_both(received.counters)


def test_memory_of_another_block_stays_as_it_is() -> None:
    stream = mixed(300)
    guest = memory_of(SIZE)
    with pair() as both:
        both.connect()
        both.expect_files()
        both.target.tell(control.Memory("mach-virt.ram", 0, SIZE), os.dup(guest))
        both.start()
        write_and_close(both.out, [stream])
        assert read_to_end(both.back) == stream
        both.expect_end()
    assert content(guest) == bytes(SIZE)
    os.close(guest)


def _twice(carrier: Carrier) -> None:
    for _ in range(2):
        carrier.tell(control.Memory("pc.ram", 0, SIZE), memory_of(SIZE))


def _late(carrier: Carrier) -> None:
    carrier.tell(control.Stream(), stream_pair()[1])
    carrier.tell(control.Memory("pc.ram", 0, SIZE), memory_of(SIZE))


@pytest.mark.parametrize(("err", "code"), [(_twice, "protocol"), (_late, "protocol")])
def test_memory_that_comes_wrongly_is_refused(err: Callable[[Carrier], None], code: str) -> None:
    near, far = tcp_pair()
    with near, Carrier() as carrier:
        carrier.tell(control.Receive(1), far)
        carrier.expect(control.CarrierFilesDone)
        err(carrier)
        assert carrier.expect(control.CarrierFailed).code == code


def test_a_source_has_no_use_for_memory() -> None:
    near, far = tcp_pair()
    with near, Carrier() as carrier:
        carrier.tell(control.Send(1), far)
        carrier.tell(control.Memory("pc.ram", 0, SIZE), memory_of(SIZE))
        carrier.last(control.CarrierFailed)
