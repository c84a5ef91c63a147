"""Which drivers there are: entry points of the group ``relocd.drivers``, each a DriverFactory."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import cast

from relocd.drivers.base import DriverFactory
from relocd.errors import DriverError

GROUP = "relocd.drivers"

#: Those that come with relocd, for a tree that was never installed and so has no metadata.
_BUILT_IN = {
    "qemu": "relocd.drivers.qemu.driver:QemuDriver",
    "memory": "relocd.drivers.memory:MemoryDriver",
    "xen": "relocd.drivers.xen.driver:XenDriver",
}


def driver_names() -> tuple[str, ...]:
    """All drivers that can be named in the configuration."""
    return tuple(sorted(_known()))


def load_driver(name: str) -> DriverFactory:
    """The factory of the driver ``name``. Raises DriverError if there is none, or it cannot be loaded."""
    known = _known()
    if name not in known:
        raise DriverError(
            f"there is no driver '{name}'", hint=f"set 'driver' to one of {', '.join(driver_names())}"
        )
    module, _, attribute = known[name].partition(":")
    try:
        return cast(DriverFactory, vars(import_module(module))[attribute])
    except (ImportError, KeyError) as error:
        raise DriverError(
            f"the driver '{name}' cannot be loaded: {error}", hint="is its package installed in full?"
        ) from error


def _known() -> dict[str, str]:
    installed: tuple[EntryPoint, ...] = tuple(entry_points(group=GROUP))
    return {**_BUILT_IN, **{entry.name: entry.value for entry in installed}}
