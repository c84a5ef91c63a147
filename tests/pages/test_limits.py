"""The longest stream that a domain can have."""

from __future__ import annotations

import pytest

from relocd.domain.rules import MAX_MEMORY_MIB
from relocd.pages.limits import PASSES_MAX, stream_bytes_max
from relocd.pages.qemu_format import PAGE_STRIDE

MIB = 1 << 20


@pytest.mark.parametrize("memory_mib", [1, 128, 1024, 1 << 20])
def test_a_domain_that_stands_still_is_sent_once(memory_mib: int) -> None:
    pages = memory_mib * MIB // 4096
    stream = pages * PAGE_STRIDE + 100 * MIB
    assert stream <= stream_bytes_max(memory_mib * MIB, live=False) < 1.01 * stream + 200 * MIB


def test_a_live_relocation_resends_pages_but_not_for_ever() -> None:
    once = stream_bytes_max(1 << 30, live=False)
    assert stream_bytes_max(1 << 30, live=True) == PASSES_MAX * once


def test_the_largest_domain_fits_a_counter() -> None:
    assert stream_bytes_max(MAX_MEMORY_MIB * MIB, live=True) < 1 << 63
