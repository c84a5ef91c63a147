"""Xen's own judge of streams, verify-stream-v2: from Debian's package, downloaded and unpacked, never installed."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.testbed.commands import TestbedError, run
from tests.testbed.image import CHECKOUT

PACKAGE = "xen-utils-4.17"
_CACHE = CHECKOUT / ".cache" / PACKAGE
_LIBRARY = Path("usr/lib/xen-4.17")


def complaint(stream: bytes) -> str:
    """What Xen has to say against a stream that begins with xl's header; empty if nothing. Raises TestbedError."""
    library = _unpacked() / _LIBRARY
    with tempfile.NamedTemporaryFile() as file:
        file.write(stream)
        file.flush()
        argv = [sys.executable, str(library / "bin/verify-stream-v2"), "-f", "xl", "-i", file.name]
        environment = os.environ | {"PYTHONPATH": str(library / "lib/python"), "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
    assert bool(done.returncode) == bool(done.stderr), done
    return done.stderr


def _unpacked() -> Path:
    """Where the package is, from the cache or fetched now (1.4 MB, once)."""
    if not _CACHE.exists():
        _CACHE.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=_CACHE.parent) as name:
            tree = Path(name) / "tree"
            run(["dpkg", "-x", _downloaded(Path(name)), tree])
            with contextlib.suppress(FileExistsError):  # somebody else was as quick
                tree.rename(_CACHE)
    return _CACHE


def _downloaded(directory: Path) -> Path:
    """The package's file; package lists that are missing or old are fetched once."""
    argv = ["apt-get", "download", "-qq", "-o", "APT::Sandbox::User=root", PACKAGE]
    try:
        run(argv, cwd=directory, timeout_s=300)
    except TestbedError:
        run(["apt-get", "update", "-qq"], timeout_s=300)
        run(argv, cwd=directory, timeout_s=300)
    (package,) = directory.glob("*.deb")
    return package
