"""Parts of the drivers that are logic alone stay so."""

from __future__ import annotations

import pytest

from tests.test_wall import FORBIDDEN, ROOT, imports


@pytest.mark.parametrize("name", ["cmdline", "options", "lifecycle", "capabilities"])
def test_no_reactor_socket_clock_or_file(name: str) -> None:
    found = {module.partition(".")[0] for module in imports(ROOT / "drivers" / "qemu" / f"{name}.py")}
    assert not found & FORBIDDEN


def test_names_of_devices_are_pure() -> None:
    found = {module.partition(".")[0] for module in imports(ROOT / "net" / "names.py")}
    assert not found & FORBIDDEN
