"""The disk image of a Xen host: Debian with Xen, sshd and all that relocd needs, but not relocd itself.

Built once and kept by the hash of all that goes into it, so that a change of relocd costs no new image: the wheel is
installed on a host that runs, as an administrator does it.
"""

from __future__ import annotations

import contextlib
import fcntl
import gzip
import hashlib
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from configparser import ConfigParser
from pathlib import Path

from attrs import frozen

from ..commands import TestbedError, run
from ..image import CHECKOUT

OVERLAY = Path(__file__).parent / "dom0"
HOST_ALIAS = "relocd-xen"  # the name under which ssh knows the host key, whatever the address
INSTALL_DIR = "/opt/relocd"
"""The virtual environment that holds relocd's dependencies, and relocd once it is installed."""

_DISK_MIB = 2560
_PACKAGES = (
    "xen-hypervisor-4.17-amd64,xen-utils-4.17,xenstore-utils,linux-image-amd64,systemd-sysv,udev,dbus,iproute2,kmod,"
    "python3-minimal,python3-venv,openssh-server,iptables,nftables,procps,libseccomp2,bridge-utils"
)
_TEST_WHEELS = ["pytest", "pytest-timeout", "hypothesis", "pexpect"]
# What dom0 needs until its root is there; the whole set of drivers would cost an emulator many seconds.
_BOOT_MODULES = "virtio_pci\nvirtio_blk\nvirtio_net\next4\ncrc32c_generic\n"
_MASKED = (
    "xendomains.service apt-daily.timer apt-daily-upgrade.timer e2scrub_all.timer e2scrub_reap.service "
    "fstrim.timer dpkg-db-backup.timer getty@tty1.service getty-static.service systemd-timesyncd.service "
    "systemd-pstore.service"
)
_FILES = ("disk.ext4", "xen", "vmlinuz", "initrd", "id_ed25519", "known_hosts")


@frozen
class XenImage:
    """What it takes to boot a Xen host and to log in to it as root."""

    disk: Path
    xen: Path
    kernel: Path
    initrd: Path
    ssh_key: Path
    known_hosts: Path

    @property
    def directory(self) -> Path:
        """Where all of it lies; snapshots are kept there, too."""
        return self.disk.parent


def build_xen_image(cache: Path | None = None) -> XenImage:
    """The image, from the cache or built now (four minutes and the network, once). Raises TestbedError."""
    cache = cache or Path(os.environ.get("RELOCD_TEST_CACHE_XEN") or CHECKOUT / ".cache" / "xen").absolute()
    cache.mkdir(parents=True, exist_ok=True)
    with _locked(cache):
        place = cache / _key()
        if not (place / "complete").exists():
            _build(cache, place)
    return XenImage(*(place / name for name in _FILES))


@contextlib.contextmanager
def _locked(cache: Path) -> Iterator[None]:
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _key() -> str:
    digest = hashlib.sha256()
    settings = ConfigParser()
    settings.read(CHECKOUT / "setup.cfg")
    digest.update(settings["options"]["install_requires"].encode())
    tools = re.findall(r"^([\w.-]+)", "\n".join(settings["options.extras_require"].values()), re.MULTILINE)
    wanted = set(tools) & set(_TEST_WHEELS)
    for line in (CHECKOUT / "constraints.txt").read_text().splitlines():
        if line.partition("==")[0] not in set(tools) - wanted:
            digest.update(line.encode())
    sources = [Path(__file__)]
    sources += sorted(path for path in OVERLAY.rglob("*") if path.is_file())
    for path in sources:
        digest.update(f"\0{path.name}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:20]


def _build(cache: Path, place: Path) -> None:
    if shutil.which("mmdebstrap") is None:
        raise TestbedError("mmdebstrap is not installed; run tests/testbed/install-packages xen")
    with tempfile.TemporaryDirectory(dir=cache, prefix="build-") as name:
        scratch = Path(name)
        out = scratch / "out"
        out.mkdir()
        wheels = scratch / "wheels"
        _download_wheels(wheels)
        _make_keys(out)
        root = scratch / "root"
        _bootstrap(root, scratch)
        _install_wheels(root, wheels)
        _settle(root, out)
        run(["mkfs.ext4", "-q", "-F", "-m", "0", "-d", root, out / _FILES[0], f"{_DISK_MIB}M"], timeout_s=600)
        (out / "complete").touch()
        if place.exists():
            shutil.rmtree(place)
        out.rename(place)


def _download_wheels(wheels: Path) -> None:
    """Everything that relocd and its tests need, as wheels: the hosts have no network."""
    argv = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--disable-pip-version-check",
        "--no-build-isolation",
    ]
    run(
        [*argv, "--constraint", CHECKOUT / "constraints.txt", "--wheel-dir", wheels, CHECKOUT, *_TEST_WHEELS],
        timeout_s=600,
    )
    for own in wheels.glob("relocd-*.whl"):
        own.unlink()


def _make_keys(out: Path) -> None:
    for name in ("id_ed25519", "host_key"):
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "relocd-testbed", "-f", out / name])
    public = (out / "host_key.pub").read_text().split()
    (out / "known_hosts").write_text(f"{HOST_ALIAS} {public[0]} {public[1]}\n")


def _bootstrap(root: Path, scratch: Path) -> None:
    confdir = scratch / "initramfs"
    (confdir / "conf.d").mkdir(parents=True)
    (confdir / "conf.d" / "testbed").write_text("MODULES=list\nCOMPRESS=zstd\n")
    (confdir / "modules").write_text(_BOOT_MODULES)
    early = (
        'mkdir -p "$1/etc/initramfs-tools/conf.d" && '
        f'cp "{confdir}/conf.d/testbed" "$1/etc/initramfs-tools/conf.d/" && '
        f'cp "{confdir}/modules" "$1/etc/initramfs-tools/modules"'
    )
    slim = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("doc", "man", "locale", "info")]
    run(
        [
            "mmdebstrap",
            "--quiet",
            "--variant=minbase",
            f"--include={_PACKAGES},zstd",
            '--aptopt=Acquire::Languages "none"',
            *slim,
            "--dpkgopt=force-confold",
            f"--essential-hook={early}",
            "--format=directory",
            "bookworm",
            root,
            "http://deb.debian.org/debian",
        ],
        timeout_s=900,
    )


def _install_wheels(root: Path, wheels: Path) -> None:
    """A virtual environment as an administrator makes one, without a network."""
    inside = root / "root" / "wheels"
    shutil.copytree(wheels, inside)
    chroot: list[str | Path] = ["chroot", root]
    run([*chroot, "python3", "-m", "venv", INSTALL_DIR], timeout_s=300)
    names = [f"/root/wheels/{path.name}" for path in sorted(inside.glob("*.whl"))]
    run(
        [*chroot, f"{INSTALL_DIR}/bin/pip", "install", "--quiet", "--no-index", "--no-deps", *names],
        timeout_s=600,
    )
    shutil.rmtree(inside)


def _settle(root: Path, out: Path) -> None:
    """The last settings, and what the boot needs from outside the disk."""
    shutil.copytree(OVERLAY, root, dirs_exist_ok=True)
    ssh = root / "root" / ".ssh"
    ssh.mkdir(exist_ok=True)
    ssh.chmod(0o700)
    shutil.copy(out / "id_ed25519.pub", ssh / "authorized_keys")
    for key in (root / "etc" / "ssh").glob("ssh_host_*"):
        key.unlink()
    shutil.copy(out / "host_key", root / "etc/ssh/ssh_host_ed25519_key")
    shutil.copy(out / "host_key.pub", root / "etc/ssh/ssh_host_ed25519_key.pub")
    run(["chroot", root, "systemctl", "enable", "--quiet", "ssh", "testbed-identity"])
    run(["chroot", root, "systemctl", "mask", "--quiet", *_MASKED.split()])
    shutil.rmtree(root / "var/lib/apt/lists", ignore_errors=True)
    for package in (root / "var/cache/apt").glob("**/*.bin"):
        package.unlink()
    boot = root / "boot"
    (out / "xen").write_bytes(gzip.decompress(_only(boot, "xen-4.17-amd64.gz").read_bytes()))
    shutil.copy(_only(boot, "vmlinuz-*"), out / "vmlinuz")
    shutil.copy(_only(boot, "initrd.img-*"), out / "initrd")


def _only(directory: Path, pattern: str) -> Path:
    found = [path for path in directory.glob(pattern) if not path.is_symlink()]
    if len(found) != 1:
        raise TestbedError(f"{len(found)} files {pattern} in {directory}, one was expected")
    return found[0]
