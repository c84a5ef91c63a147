"""What a guest does to its memory, on QEMU: the parts that can be judged without one."""

from __future__ import annotations

import pytest

from relocd.drivers.qemu.load import resident_bytes, samples_per_gib

SMAPS = """\
55d0c0000000-55d0c0100000 rw-p 00000000 00:00 0                          [heap]
Size:               1024 kB
Rss:                1000 kB
7f323be00000-7f325be02000 rw-p 00000000 00:00 0
Size:             524296 kB
Rss:              278528 kB
7f325c021000-7f3260000000 ---p 00000000 00:00 0
Rss:                   0 kB
"""


def test_the_guests_memory_is_the_mapping_of_its_size() -> None:
    assert resident_bytes(SMAPS, 512 << 20) == 278528 << 10


def test_without_such_a_mapping_all_memory_counts() -> None:
    assert resident_bytes(SMAPS, 256 << 20) == 256 << 20
    assert resident_bytes("", 1 << 20) == 1 << 20


@pytest.mark.parametrize(
    ("memory_mib", "samples"),
    [(1, 16384), (256, 16384), (1024, 4096), (4096, 1024), (1 << 20, 128), (1 << 30, 128)],
)
def test_samples_are_about_as_many_for_every_size(memory_mib: int, samples: int) -> None:
    assert samples_per_gib(memory_mib) == samples
