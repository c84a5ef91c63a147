"""One pair of Xen hosts for all tests: to emulate them is slow."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.xen.scene import XenScene


@pytest.fixture(scope="session")
def scene() -> Iterator[XenScene]:
    with XenScene() as scene:
        yield scene
