"""Every contract test runs on every hypervisor."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.contracts.rigs import RIGS, Rig

#: Names one hypervisor that is here and to be tested instead: in the dom0 of a Xen host that is "xen".
_ONLY = os.environ.get("RELOCD_CONTRACT_ON")

_PARAMETERS = [
    "memory",
    pytest.param("xl", marks=pytest.mark.standin),
    pytest.param("qemu", marks=[pytest.mark.qemu, pytest.mark.netns]),
]


@pytest.fixture(params=[_ONLY] if _ONLY else _PARAMETERS)
def rig(request: pytest.FixtureRequest) -> Iterator[Rig]:
    rig = RIGS[request.param]()
    yield rig
    rig.close()
