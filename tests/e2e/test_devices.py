"""What a domain has beside memory: a disk on shared storage, and a console that a person attaches to."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pexpect
import pytest

from tests.e2e.conftest import Witness
from tests.scene import GUEST_UUID, Scene
from tests.testbed.daemons import PROGRAMS, RelocdHost
from tests.testbed.network import GUEST_IP
from tests.testbed.sessions import ssh_argv

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
DISK_BYTES = 4 << 20


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory that both hosts reach by the same path."""
    return tmp_path_factory.mktemp("storage")


@pytest.fixture(scope="module")
def scene(storage: Path) -> Iterator[Scene]:
    """A guest with a disk."""
    with Scene(settings={"xen-relocation-disk-paths": str(storage)}) as scene:
        disk = storage / "disk.img"
        disk.write_bytes(bytes(DISK_BYTES))
        path = scene.domain_file(memory_mib=160, fill_mib=16)
        path.write_text(path.read_text() + f'disk = ["file:{disk},xvda,w"]\n')
        scene.a.relocctl("create", path)
        scene.wait_guest(lambda stat: stat.full)
        yield scene


def in_guest(scene: Scene, command: str) -> str:
    """Run a command in the guest over ssh."""
    argv = scene.client.argv(ssh_argv(scene.image, GUEST_IP, command))
    return subprocess.run(argv, check=True, capture_output=True, text=True, timeout=60).stdout


def test_a_disk_is_handed_over_and_its_lock_with_it(scene: Scene, witness: Witness, storage: Path) -> None:
    in_guest(scene, "echo written on a > /dev/vda; sync")
    scene.a.relocctl("migrate", "--live", "guest", scene.b.host.address)
    assert in_guest(scene, "head -c 12 /dev/vda") == "written on a"
    in_guest(scene, "echo written on b > /dev/vda; sync")
    assert (storage / "disk.img").read_bytes().startswith(b"written on b")
    # QEMU's own lock says that host b has the image now: nobody else can write to it.
    other = scene.directory / "other.cfg"
    text = (scene.directory / "guest.cfg").read_text()
    other.write_text(
        text.replace(GUEST_UUID, GUEST_UUID[:-1] + "d").replace('name = "guest"', 'name = "thief"')
    )
    reply = scene.a.relocctl("create", other, check=False)
    assert reply.exit_code == 9
    assert "lock" in reply.stderr
    scene.a.wait_clean()
    scene.b.relocctl("migrate", "--live", "guest", scene.a.host.address)
    assert in_guest(scene, "head -c 12 /dev/vda") == "written on b"
    witness.runs_on_a()


def test_a_disk_that_the_target_does_not_allow_or_have(scene: Scene, witness: Witness, storage: Path) -> None:
    scene.b.write_config({"xen-relocation-disk-paths": "/srv/elsewhere"})
    scene.b.terminate()
    scene.b.start()
    reply = scene.a.relocctl("migrate", "guest", scene.b.host.address, check=False)
    assert reply.exit_code == 7
    assert [reason["code"] for reason in reply.result["reasons"]] == ["disks"]
    assert "xen-relocation-disk-paths" in reply.stderr
    scene.b.write_config({"xen-relocation-disk-paths": str(storage)})
    scene.b.terminate()
    scene.b.start()
    witness.runs_on_a()


@contextlib.contextmanager
def held_by_another_qemu(host: RelocdHost, disk: Path) -> Iterator[int]:
    """On this host alone the disk is a copy that a QEMU has locked, as with locks that end at the host."""
    copy = disk.with_suffix(".copy")
    shutil.copy(disk, copy)
    assert host.process is not None
    inside = ["nsenter", f"--mount=/proc/{host.process.pid}/ns/mnt"]
    subprocess.run([*inside, "mount", "--bind", copy, disk], check=True)
    drive = ["-blockdev", f"driver=file,filename={copy},node-name=d", "-device", "virtio-blk-pci,drive=d"]
    argv = ["qemu-system-x86_64", "-S", "-nodefaults", "-display", "none", "-qmp", "stdio", *drive]
    thief = host.host.popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert thief.stdout is not None
    assert b"QMP" in thief.stdout.readline()
    try:
        yield thief.pid
    finally:
        thief.kill()
        thief.communicate()
        subprocess.run([*inside, "umount", disk], check=True)


def test_a_disk_that_is_locked_at_the_target_stays_at_the_source(
    scene: Scene, witness: Witness, storage: Path
) -> None:
    disk = storage / "disk.img"
    with held_by_another_qemu(scene.b, disk) as pid:
        reply = scene.a.relocctl("migrate", "--live", "guest", scene.b.host.address, check=False)
    assert reply.exit_code == 9
    assert reply.result["outcome"] == "failed"
    assert f"disk {disk} is still locked by qemu-system-x86 (pid {pid})" in reply.stderr
    witness.runs_on_a()
    in_guest(scene, "echo still written > /dev/vda; sync")
    assert disk.read_bytes().startswith(b"still written")


def console(scene: Scene, host: RelocdHost) -> pexpect.spawn:
    """Attach as a person does, on a real terminal."""
    argv = host.host.argv([PROGRAMS / "xm", "console", "guest"])
    environment = {**os.environ, "RELOCD_SOCKET": str(host.control_socket)}
    return pexpect.spawn(argv[0], argv[1:], env=environment, timeout=30, encoding="utf-8")


def test_the_console_is_a_shell_here_and_there_and_ctrl_bracket_leaves(
    scene: Scene, witness: Witness
) -> None:
    for host, other in ((scene.a, scene.b), (scene.b, scene.a)):
        terminal = console(scene, host)
        terminal.expect("Ctrl")
        terminal.sendline("echo my$((40+2))answer")
        terminal.expect("my42answer")
        terminal.send("\x1d")
        terminal.expect(pexpect.EOF)
        terminal.close()
        assert terminal.exitstatus == 0
        host.relocctl("migrate", "--live", "guest", other.host.address)
    witness.runs_on_a()


def test_what_the_console_says_is_kept(scene: Scene) -> None:
    log = Path(scene.a.relocctl("console", "guest").result["log"])
    terminal = console(scene, scene.a)
    terminal.expect("Ctrl")
    terminal.sendline("echo kept$((40+2))words")
    terminal.expect("kept42words")
    terminal.close()
    assert "kept42words" in log.read_text(errors="replace")
