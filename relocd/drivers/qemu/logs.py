"""What QEMU and guests write to files, kept within bounds. Everything here blocks."""

from __future__ import annotations

import contextlib
import re
import shutil
import time
from collections.abc import Container
from pathlib import Path
from uuid import UUID

#: With -msg timestamp=on each line begins with the time and the program's name.
_PREFIX = re.compile(r"^\S+Z (?:\S*qemu\S*: )?")
_TAIL_BYTES = 4096
_KEPT_DAYS = 7
_LOG = re.compile(r"(?:console|qemu|xl)-([0-9a-f-]{36})\.log(?:\.1)?")


def console_log(directory: Path, domain: UUID) -> Path:
    """What a domain's console said."""
    return directory / f"console-{domain}.log"


def error_log(directory: Path, domain: UUID) -> Path:
    """What a domain's QEMU complained about."""
    return directory / f"qemu-{domain}.log"


def last_words(path: Path, lines: int = 3) -> str:
    """The last lines of an error log in one line, without times; empty if there are none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    return "; ".join(_PREFIX.sub("", line) for line in text.splitlines()[-lines:])


def bound(path: Path, limit_bytes: int) -> None:
    """Move what a log holds aside once it is longer than the limit, so that log and copy are twice that at most.

    The writer appends (O_APPEND), so it goes on at the new end. What it writes between copy and cut is lost.
    """
    with contextlib.suppress(FileNotFoundError):
        if path.stat().st_size > limit_bytes:
            shutil.copyfile(path, _former(path))
            with path.open("r+b") as file:
                file.truncate(0)


def bound_all(directory: Path, domain: UUID, limit_bytes: int) -> None:
    """Keep both logs of a domain within bounds."""
    for path in (console_log(directory, domain), error_log(directory, domain)):
        bound(path, limit_bytes)


def remove(directory: Path, domain: UUID) -> None:
    """Remove the logs of a domain. Idempotent."""
    for path in (console_log(directory, domain), error_log(directory, domain)):
        path.unlink(missing_ok=True)
        _former(path).unlink(missing_ok=True)


def sweep(directory: Path, living: Container[str]) -> None:
    """Remove logs of domains that went by themselves more than a week ago. ``living`` holds UUIDs."""
    oldest_s = time.time() - _KEPT_DAYS * 86400
    for path in directory.glob("*.log*"):
        match = _LOG.fullmatch(path.name)
        if match and match[1] not in living and path.stat().st_mtime < oldest_s:
            path.unlink(missing_ok=True)


def _former(path: Path) -> Path:
    return path.with_name(path.name + ".1")
