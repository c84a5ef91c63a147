"""Small files that must be whole or absent, also after a crash of the host. Everything here blocks."""

from __future__ import annotations

import os
from pathlib import Path


def write_whole(path: Path, content: bytes) -> None:
    """Replace ``path`` with ``content``, on disk when this returns. Only root can read it."""
    temporary = path.with_name(f".{path.name}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    move(temporary, path)


def move(source: Path, destination: Path) -> None:
    """Rename a file, on disk when this returns."""
    source.replace(destination)
    sync_directory(destination.parent)


def sync_directory(path: Path) -> None:
    """Have what was created, renamed or removed in a directory on disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
