"""Kernels and ramdisks by content: what arrives from a peer is checked before it is given its name."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

from attrs import define

from relocd.errors import StreamError
from relocd.model import BootFile

_PREFIX = "arriving-"


@define
class Arrival:
    """A boot file on its way in: an open temporary file that a carrier writes to."""

    file: BootFile
    descriptor: int
    _temporary: Path
    _store: Path

    @classmethod
    def create(cls, store: Path, file: BootFile) -> Arrival:
        """Open an empty file in the store."""
        descriptor, name = tempfile.mkstemp(prefix=_PREFIX, dir=store)
        return cls(file, descriptor, Path(name), store)

    def admit(self) -> None:
        """Blocking: verify size and digest, then give the file its name. Raises StreamError."""
        try:
            if (
                os.fstat(self.descriptor).st_size != self.file.size_bytes
                or self._digest() != self.file.sha256
            ):
                raise StreamError(f"{self.file.path} did not arrive as announced")
            os.fsync(self.descriptor)
            self._temporary.rename(self._store / self.file.sha256)
        finally:
            self.discard()

    def _digest(self) -> str:
        with self._temporary.open("rb") as content:
            return hashlib.file_digest(content, "sha256").hexdigest()

    def discard(self) -> None:
        """Close and remove what is there. Idempotent."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1
        self._temporary.unlink(missing_ok=True)


def missing(store: Path, files: Iterable[BootFile]) -> tuple[BootFile, ...]:
    """Those files that the store lacks, each content once."""
    wanted = {file.sha256: file for file in files}
    return tuple(file for digest, file in wanted.items() if not (store / digest).is_file())


def sweep(store: Path) -> None:
    """Remove what a crash left half arrived."""
    for path in store.glob(_PREFIX + "*"):
        path.unlink(missing_ok=True)


def trim(store: Path, in_use: Iterable[str], limit_bytes: int) -> None:
    """Blocking: remove files that no domain uses, oldest first, until the store is within its limit."""
    keep = set(in_use)
    files = sorted((p for p in store.iterdir() if p.is_file()), key=lambda p: p.stat().st_mtime)
    total = sum(path.stat().st_size for path in files)
    for path in files:
        if total <= limit_bytes:
            return
        if path.name not in keep and not path.name.startswith(_PREFIX):
            total -= path.stat().st_size
            path.unlink(missing_ok=True)
