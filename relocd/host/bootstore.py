"""The boot store: kernels and ramdisks by content, so that a domain finds the same ones on every host.

A file is named by the lower-case hex SHA-256 of what it holds. Everything here blocks and runs in a thread.
"""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from collections.abc import Iterable
from pathlib import Path

from attrs import evolve

from relocd.errors import DriverError
from relocd.host.files import move
from relocd.model import BootFile, DomainConfig

_CHUNK_BYTES = 1 << 20

#: How the names of unfinished files begin: those that arrive from a peer, and those that are being copied.
ARRIVING, COPYING = "arriving-", ".new-"


def fill(directory: Path, config: DomainConfig, *, limit_bytes: int) -> DomainConfig:
    """Put a domain's boot files into the store and return the configuration with their digests and sizes.

    A file whose digest is set must have that content. Raises DriverError for a file that cannot be read, is
    larger than ``limit_bytes`` or is another one than the digest says.
    """
    kernel = put(directory, config.kernel, limit_bytes=limit_bytes) if config.kernel else None
    ramdisk = put(directory, config.ramdisk, limit_bytes=limit_bytes) if config.ramdisk else None
    return evolve(config, kernel=kernel, ramdisk=ramdisk)


def put(directory: Path, file: BootFile, *, limit_bytes: int) -> BootFile:
    """Copy one file into the store, unless it is there. See :func:`fill`."""
    if file.sha256 and (directory / file.sha256).is_file():
        return evolve(file, size_bytes=(directory / file.sha256).stat().st_size)
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        descriptor = os.open(file.path, os.O_RDONLY | os.O_NONBLOCK)  # a FIFO must not hang us
    except OSError as error:
        raise DriverError(f"cannot read {file.path}: {error.strerror}") from error
    try:
        _check(file.path, os.fstat(descriptor), limit_bytes)
        return _copy(descriptor, directory, file)
    finally:
        os.close(descriptor)


def require(directory: Path, config: DomainConfig) -> None:
    """Raise DriverError if a boot file of the domain is not in the store."""
    for file in config.boot_files:
        if not file.sha256 or not (directory / file.sha256).is_file():
            raise DriverError(
                f"{file.path} ({file.sha256 or 'digest unknown'}) is not in the boot store {directory}"
            )


def missing(store: Path, files: Iterable[BootFile]) -> tuple[BootFile, ...]:
    """Those files that the store lacks, each content once."""
    wanted = {file.sha256: file for file in files}
    return tuple(file for digest, file in wanted.items() if not (store / digest).is_file())


def sweep(store: Path) -> None:
    """Remove what a crash left half arrived."""
    for prefix in (ARRIVING, COPYING):
        for path in store.glob(prefix + "*"):
            path.unlink(missing_ok=True)


def trim(store: Path, in_use: Iterable[str], limit_bytes: int) -> None:
    """Blocking: remove files that no domain uses, oldest first, until the store is within its limit."""
    keep = set(in_use)
    files = sorted((p for p in store.iterdir() if p.is_file()), key=lambda p: p.stat().st_mtime)
    total = sum(path.stat().st_size for path in files)
    for path in files:
        if total <= limit_bytes:
            return
        if path.name not in keep and not path.name.startswith((ARRIVING, COPYING)):
            total -= path.stat().st_size
            path.unlink(missing_ok=True)


def _check(path: str, facts: os.stat_result, limit_bytes: int) -> None:
    if not stat.S_ISREG(facts.st_mode):
        raise DriverError(f"{path} is not a file")
    if not 0 < facts.st_size <= limit_bytes:
        raise DriverError(
            f"{path} has {facts.st_size} bytes; a boot file has 1 to {limit_bytes}",
            hint="the limit is boot-file-limit in relocd's configuration",
        )


def _copy(descriptor: int, directory: Path, file: BootFile) -> BootFile:
    digest = hashlib.sha256()
    size_bytes = 0
    with tempfile.NamedTemporaryFile(dir=directory, prefix=COPYING, delete=False) as copy:
        temporary = Path(copy.name)
        try:
            while chunk := os.read(descriptor, _CHUNK_BYTES):
                digest.update(chunk)
                copy.write(chunk)
                size_bytes += len(chunk)
            copy.flush()
            os.fsync(copy.fileno())
            sha256 = digest.hexdigest()
            if file.sha256 and file.sha256 != sha256:
                raise DriverError(f"{file.path} is not the file it was: its digest is {sha256}")
            move(temporary, directory / sha256)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    return evolve(file, sha256=sha256, size_bytes=size_bytes)
