"""The guest's kernel: Debian's package for clouds, downloaded and unpacked, never installed."""

from __future__ import annotations

import contextlib
import re
import tempfile
from pathlib import Path

from .commands import TestbedError, run

META_PACKAGE = "linux-image-cloud-amd64"
_PATTERN = "linux-image-*-cloud-amd64_*.deb"


def kernel_package(cache: Path, *, update: bool = False) -> Path:
    """The kernel's package file in ``cache``; downloaded if there is none yet, or if ``update`` asks for the newest.

    What is in the cache stays in use, so that tests neither need the network nor change under one's hands.
    """
    present = sorted(cache.glob(_PATTERN), key=lambda path: path.stat().st_mtime)
    if present and not update:
        return present[-1]
    cache.mkdir(parents=True, exist_ok=True)
    return _download_from_fresh_lists(cache)


def _download_from_fresh_lists(cache: Path) -> Path:
    """Package lists may be missing (a new container) or older than the archive: then they are fetched once."""
    with contextlib.suppress(TestbedError):
        return _download(cache)
    run(["apt-get", "update", "-qq"], timeout_s=300)
    return _download(cache)


def _download(cache: Path) -> Path:
    record = run(["apt-cache", "show", "--no-all-versions", META_PACKAGE])
    match = re.search(r"^Depends:.*?(linux-image-\S+) \(= (\S+)\)", record, re.MULTILINE)
    if match is None:
        raise TestbedError(f"{META_PACKAGE} names no kernel package; see 'apt-cache show {META_PACKAGE}'")
    # As root apt would switch to a user who may not write here, and warn that it cannot.
    sandbox = ["-o", "APT::Sandbox::User=root"]
    with tempfile.TemporaryDirectory(dir=cache) as name:
        run(["apt-get", "download", "-qq", *sandbox, f"{match[1]}={match[2]}"], cwd=Path(name), timeout_s=600)
        (package,) = Path(name).glob("*.deb")
        return package.rename(cache / package.name)


def unpack(package: Path, tree: Path) -> Path:
    """Unpack ``package`` below ``tree`` and return the path of the kernel in it."""
    run(["dpkg", "-x", package, tree])
    kernels = list((tree / "boot").glob("vmlinuz-*"))
    if len(kernels) != 1:
        raise TestbedError(f"{package.name} holds {len(kernels)} kernels, one was expected")
    return kernels[0]


def modules_for(tree: Path, wanted: list[str]) -> list[Path]:
    """The files of the modules ``wanted`` and of all that they need, in the order in which to insert them."""
    files = {_name(path): path for path in (tree / "lib/modules").rglob("*.ko")}
    ordered: dict[str, Path] = {}

    def add(name: str) -> None:
        if name in ordered:
            return
        if name not in files:
            raise TestbedError(f"this kernel has no module {name}")
        for needed in run(["modinfo", "-F", "depends", files[name]]).strip().split(","):
            if needed:
                add(needed.replace("-", "_"))
        ordered[name] = files[name]

    for name in wanted:
        add(name)
    return list(ordered.values())


def _name(path: Path) -> str:
    """A module's name: its file's, where - and _ are the same."""
    return path.stem.replace("-", "_")
