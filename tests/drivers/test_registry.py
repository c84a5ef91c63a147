"""Drivers by name."""

from __future__ import annotations

from importlib.metadata import EntryPoint

import pytest

from relocd.drivers import registry
from relocd.drivers.memory import MemoryDriver
from relocd.drivers.qemu.driver import QemuDriver
from relocd.drivers.registry import driver_names, load_driver
from relocd.errors import DriverError


def test_those_that_come_with_relocd() -> None:
    assert load_driver("qemu") is QemuDriver
    assert load_driver("memory") is MemoryDriver
    assert {"memory", "qemu"} <= set(driver_names())


def test_an_unknown_one_is_answered_with_those_there_are() -> None:
    with pytest.raises(DriverError, match="no driver 'xen9'") as caught:
        load_driver("xen9")
    assert "qemu" in caught.value.hint


def test_without_metadata_the_built_in_ones_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "entry_points", lambda group: ())
    assert load_driver("memory") is MemoryDriver


@pytest.mark.parametrize("value", ["relocd.drivers.none:Driver", "relocd.drivers.memory:NoDriver"])
def test_one_that_cannot_be_loaded_says_why(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    entry = EntryPoint("broken", value, registry.GROUP)
    monkeypatch.setattr(registry, "entry_points", lambda group: (entry,))
    assert "broken" in driver_names()
    with pytest.raises(DriverError, match="'broken' cannot be loaded"):
        load_driver("broken")
