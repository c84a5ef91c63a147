"""Namespaces of a run: names that say who owns them, so that what a dead run left can be told and removed."""

from __future__ import annotations

import itertools
import os
import re

from .commands import run
from .netns import NAMESPACES
from .processes import kill_all, start_ticks

_NAME = re.compile(r"relocd-(?P<pid>\d+)-(?P<start>\d+)-\d+-\w+")
_counter = itertools.count(1)


def new_prefix() -> str:
    """A prefix that no other testbed has: of this process, even if its pid comes again, and of this call."""
    pid = os.getpid()
    return f"relocd-{pid}-{start_ticks(pid)}-{next(_counter)}"


def remove_leftovers() -> list[str]:
    """Remove the namespaces of runs that are no longer alive, with every process in them; return their names."""
    names = [path.name for path in NAMESPACES.glob("relocd-*")] if NAMESPACES.is_dir() else []
    dead = [name for name in names if (match := _NAME.fullmatch(name)) and not _alive(match)]
    for name in dead:
        remove(name)
    return dead


def remove(name: str) -> None:
    """Kill every process in a namespace and remove it, with all interfaces inside. Nothing happens if it is gone."""
    if (NAMESPACES / name).exists():
        kill_all(pids_in(name))
        run(["ip", "netns", "delete", name])


def pids_in(name: str) -> list[int]:
    """The processes that live in a namespace, one that this process's own threads visit excepted."""
    return [pid for pid in map(int, run(["ip", "netns", "pids", name]).split()) if pid != os.getpid()]


def _alive(name: re.Match[str]) -> bool:
    return start_ticks(int(name["pid"])) == int(name["start"])
