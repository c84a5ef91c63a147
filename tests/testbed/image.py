"""The guest image: built once, kept in a cache by the hash of all that went into it, verified at each use."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from attrs import frozen

from . import commands, initramfs, kernel

CACHE_VARIABLE = "RELOCD_TEST_CACHE"
CHECKOUT = Path(__file__).parents[2]
MEMORY_MIN_MIB = 96  # with less, this kernel dies before it can unpack the ramdisk

# pti=on keeps guests alive that QEMU before 8.2.3 and 9.0 emulates (TCG). When it takes over the dirty bits of a
# block of RAM it forgets that the emulator's TLB still lets stores to those pages through unmarked, and they are
# missing on the target (fixed by "Fix migration dirty bitmap coherency with TCG memory access"): without it one of
# four migrations of an otherwise quiet guest ends in a panic, relocd or not. With it every way into and out of the
# kernel flushes the TLB, and the time in which a store can be lost shrinks from seconds to a few milliseconds.
# tsc=reliable: the clock is not checked against a slower one, which would find a jump after a relocation and be used
# from then on. The others: half a second less of an emulated boot.
BOOT_OPTIONS = (
    "console=ttyS0 quiet pti=on tsc=reliable "
    "no_timer_check nokaslr audit=0 init_on_alloc=0 cryptomgr.notests=1"
)

_PACKAGES = ["busybox-static", "dropbear-bin", "libc6", "libc6-dev", "gcc"]
_FILES = ("vmlinuz", "initramfs.zst", "id_ed25519", "known_hosts")
_MANIFEST = "manifest.json"


@frozen
class GuestImage:
    """What it takes to start a guest and to log in to it as root."""

    kernel: Path
    ramdisk: Path
    ssh_key: Path
    known_hosts: Path


def guest_cmdline(
    ip: str = "",
    *,
    fill_mib: int = 32,
    working_set_mib: int = 32,
    dirty_mb_s: float = 0,
    verify_mb_s: float = 20,
    content: str = "text",
    console: bool | None = None,
    hostname: str = "guest",
) -> str:
    """The kernel command line of a guest; ``guest/etc/rc`` says what each setting does. ``ip`` is ADDRESS/PREFIX."""
    settings = {
        "ip": ip,
        "fill": fill_mib,
        "ws": working_set_mib,
        "rate": dirty_mb_s,
        "verify": verify_mb_s,
        "content": content,
        "console": "" if console is None else int(console),
        "hostname": hostname,
    }
    return " ".join(
        [BOOT_OPTIONS, *(f"relocd.{key}={value}" for key, value in settings.items() if value != "")]
    )


def cache_directory() -> Path:
    """Where images are kept: ``$RELOCD_TEST_CACHE``, or ``.cache/guest`` of this checkout."""
    return Path(os.environ.get(CACHE_VARIABLE) or CHECKOUT / ".cache" / "guest").absolute()


def build_image(cache: Path | None = None, *, update_kernel: bool = False) -> GuestImage:
    """The guest image, from the cache or built now (about ten seconds; the network only if no kernel is cached).

    Several processes may call this at once: one builds, the others wait. Raises TestbedError.
    """
    cache = cache or cache_directory()
    with _locked(cache):
        package = kernel.kernel_package(cache / "packages", update=update_kernel)
        place = cache / _key(package)
        if not _verified(place):
            _build(cache, package, place)
    return GuestImage(*(place / name for name in _FILES))


@contextlib.contextmanager
def _locked(cache: Path) -> Iterator[None]:
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _key(package: Path) -> str:
    """A hash of everything that an image depends on."""
    digest = hashlib.sha256(package.name.encode())
    digest.update(commands.run(["dpkg-query", "-W", *_PACKAGES]).encode())
    sources = [Path(module.__file__ or "") for module in (initramfs, kernel)] + [Path(__file__)]
    sources += sorted(path for path in initramfs.GUEST.rglob("*") if path.is_file())
    for path in sources:
        digest.update(f"\0{path.name}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:20]


def _build(cache: Path, package: Path, place: Path) -> None:
    """Build in a scratch directory and move the result to its place as a whole."""
    with tempfile.TemporaryDirectory(dir=cache, prefix="build-") as name:
        scratch = Path(name)
        out = scratch / "out"
        out.mkdir()
        tree = scratch / "kernel"
        shutil.copy(kernel.unpack(package, tree), out / _FILES[0])
        initramfs.build_initramfs(out / _FILES[1], scratch / "stage", tree)
        manifest = {file: _sha256(out / file) for file in _FILES}
        (out / _MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
        if place.exists():  # and is damaged, or this build would not be
            shutil.rmtree(place)
        out.rename(place)


def _verified(place: Path) -> bool:
    """Whether a finished, undamaged image is there."""
    try:
        manifest = json.loads((place / _MANIFEST).read_text())
        return all(manifest[name] == _sha256(place / name) for name in _FILES)
    except (OSError, ValueError, KeyError):
        return False


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
