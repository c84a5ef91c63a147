"""The guest's file system: busybox, kernel modules, dropbear and the programs of ``guest/``, as one archive."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from attrs import frozen

from .commands import TestbedError, run
from .kernel import modules_for

GUEST = Path(__file__).parent / "guest"
HOST_ALIAS = "relocd-guest"  # the name under which ssh knows every guest's host key, whatever its address

# Per bus that the guest may find itself on (etc/rc chooses). The power button needs button and evdev; with
# pvpanic_mmio a panic is told to the host.
MODULES = {
    "virtio": ["virtio_pci", "virtio_net", "virtio_blk", "button", "evdev", "pvpanic_mmio"],
    "xen": ["xen_netfront", "xen_blkfront"],
}
PROGRAMS = {"memcheck": "memcheck.c", "echo-server": "echo.c"}
# Vector instructions cost an emulator more than they gain.
COMPILE = [
    "gcc",
    "-O2",
    "-fno-tree-vectorize",
    "-static",
    "-s",
    "-Wall",
    "-Wextra",
    "-Wconversion",
    "-Werror",
]
DIRECTORIES = ["bin", "dev", "proc", "sys", "run", "tmp", "usr", "lib/modules", "etc/dropbear", "root/.ssh"]
LINKS = {"init": "bin/busybox", "sbin": "bin", "usr/bin": "../bin", "usr/sbin": "../bin"}


@frozen
class Keys:
    """What ssh needs to reach a guest: a private key (``client``) and a known_hosts file."""

    client: Path
    known_hosts: Path


def build_initramfs(out: Path, stage: Path, kernel_tree: Path) -> Keys:
    """Write the archive to ``out``, using ``stage`` as a scratch directory; keys are made beside ``out``."""
    for name in DIRECTORIES:
        (stage / name).mkdir(parents=True, exist_ok=True)
    for name, target in LINKS.items():
        (stage / name).symlink_to(target)
    shutil.copytree(GUEST / "etc", stage / "etc", dirs_exist_ok=True)
    _add_busybox(stage)
    _add_modules(stage, kernel_tree)
    for name, source in PROGRAMS.items():
        compile_program(source, stage / "bin" / name)
    _add_with_libraries(stage, Path("/usr/sbin/dropbear"))
    keys = _add_keys(stage, out.parent)
    _archive(stage, out)
    return keys


def compile_program(source: str, out: Path) -> None:
    """Compile one of the guest's programs, for the guest or to try it out on this machine."""
    run([*COMPILE, "-o", out, GUEST / source])


def _add_busybox(stage: Path) -> None:
    shutil.copy("/bin/busybox", stage / "bin/busybox")
    for applet in run(["/bin/busybox", "--list"]).split():
        link = stage / "bin" / applet
        if applet != "busybox":
            link.symlink_to("busybox")


def _add_modules(stage: Path, kernel_tree: Path) -> None:
    """The modules, and for each bus a list of those to insert, in order."""
    for bus, wanted in MODULES.items():
        paths = modules_for(kernel_tree, wanted)
        for path in paths:
            shutil.copy(path, stage / "lib/modules")
        (stage / "etc" / f"modules.{bus}").write_text("".join(f"{path.stem}\n" for path in paths))


def _add_with_libraries(stage: Path, program: Path) -> None:
    """A dynamic program, and its libraries under the paths at which its loader looks for them."""
    if not program.exists():
        raise TestbedError(f"{program} is not installed; run tests/testbed/install-packages")
    shutil.copy(program, stage / "bin")
    for library in re.findall(r"(/\S+) \(0x", run(["ldd", program])):
        copy = stage / library.lstrip("/")
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(library, copy)


def _add_keys(stage: Path, directory: Path) -> Keys:
    """A host key and an authorised client key, for this image only."""
    keys = Keys(client=directory / "id_ed25519", known_hosts=directory / "known_hosts")
    answer = run(["dropbearkey", "-t", "ed25519", "-f", stage / "etc/dropbear/host_key"])
    public = re.search(r"^ssh-ed25519 \S+", answer, re.MULTILINE)
    if public is None:
        raise TestbedError(f"dropbearkey shows no public key: {answer}")
    keys.known_hosts.write_text(f"{HOST_ALIAS} {public[0]}\n")
    run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "relocd-testbed", "-f", keys.client])
    shutil.copy(keys.client.with_suffix(".pub"), stage / "root/.ssh/authorized_keys")
    for private in ("root", "root/.ssh"):  # else dropbear does not trust what is in there
        (stage / private).chmod(0o700)
    return keys


def _archive(stage: Path, out: Path) -> None:
    names = "\n".join(str(path.relative_to(stage)) for path in sorted(stage.rglob("*")))
    plain = out.with_suffix(".cpio")
    run(
        ["cpio", "--create", "--format=newc", "--owner=0:0", "--quiet", "--file", plain],
        text_in=names,
        cwd=stage,
    )
    run(["zstd", "-q", "-10", "--rm", plain, "-o", out])
