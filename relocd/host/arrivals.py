"""Boot files that arrive from a peer: checked here before they get their name in the boot store."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

from attrs import define

from relocd.errors import StreamError
from relocd.host.bootstore import ARRIVING
from relocd.host.files import move
from relocd.model import BootFile


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
        descriptor, name = tempfile.mkstemp(prefix=ARRIVING, dir=store)
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
            move(self._temporary, self._store / self.file.sha256)
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
