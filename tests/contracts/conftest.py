"""Every contract test runs on every hypervisor."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.contracts.rigs import RIGS, Rig

_PARAMETERS = ["memory", "xl", pytest.param("qemu", marks=[pytest.mark.qemu, pytest.mark.netns])]


@pytest.fixture(params=_PARAMETERS)
def rig(request: pytest.FixtureRequest) -> Iterator[Rig]:
    rig = RIGS[request.param]()
    yield rig
    rig.close()
