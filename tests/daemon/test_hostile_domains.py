"""An allowed peer proposes domains that reach for more of this host than a domain may have; each is turned down.

Nothing is built, opened, promised or written down for any of them, and the next honest one is welcome.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from attrs import evolve

from relocd.drivers.memory import forget_hosts
from relocd.handover.record import Mark
from relocd.model import BootFile, Disk, DomainConfig, Vif
from relocd.wire.messages import Accept, Hello, Intent, Message, Problem, Propose, Refuse, decode, encode
from tests.daemon.rig import Daemon, marks, settled
from tests.qcow2 import write_qcow2
from tests.reactor import call

HELLO = encode(Hello("test", "elsewhere", 0))
INSIDE, OUTSIDE = "/INSIDE", "/OUTSIDE"
"""Stand for the directory that the target allows for disks, and for one that it does not."""

VIF = Vif("00:16:3e:00:00:01", "xenbr0")
KERNEL = BootFile("/boot/vmlinuz", "ab" * 32, 8192)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two directories of a host, and what somebody on shared storage may have put into the allowed one."""
    root = tmp_path_factory.mktemp("host")
    inside, outside = root / "INSIDE", root / "OUTSIDE"
    inside.mkdir()
    outside.mkdir()
    (outside / "shadow").write_bytes(b"root:x" * 2000)
    (inside / "good.img").write_bytes(bytes(8192))
    (inside / "link.img").symlink_to(outside / "shadow")
    (inside / "far.img").symlink_to("/dev/mem")
    (inside / "door").symlink_to(outside)
    (inside / "directory").mkdir()
    write_qcow2(inside / "backed.qcow2", backing=str(outside / "shadow"), backing_format="raw")
    write_qcow2(inside / "relative.qcow2", backing="../OUTSIDE/shadow", backing_format="raw")
    write_qcow2(inside / "linked.qcow2", backing="link.img", backing_format="raw")
    write_qcow2(inside / "deep.qcow2", backing="backed.qcow2", backing_format="qcow2")
    write_qcow2(inside / "data.qcow2", data_file=str(outside / "shadow"))
    write_qcow2(inside / "net.qcow2", backing="nbd://192.0.2.1/x", backing_format="raw")
    write_qcow2(inside / "json.qcow2", backing='json:{"driver":"host_device"}', backing_format="raw")
    write_qcow2(inside / "guess.qcow2", backing="good.img")
    write_qcow2(inside / "fine.qcow2", backing="good.img", backing_format="raw")
    return root


@pytest.fixture(scope="module")
def target(root: Path) -> Iterator[Daemon]:
    daemon = Daemon(root / "daemon", disk_paths=(str(root / "INSIDE"),), max_incoming=2)
    yield daemon
    daemon.stop()
    forget_hosts()


@pytest.fixture(scope="module")
def honest(target: Daemon) -> DomainConfig:
    """One that would be welcome."""
    facts = call(target.service._context.driver.facts)
    return DomainConfig(
        *("web", uuid4(), 1),
        hypervisor=facts.driver,
        architecture=facts.architecture,
        machine=min(facts.machines),
        cpu=min(facts.cpu_models),
        accelerator=min(facts.accelerators),
    )


def propose(target: Daemon, line: bytes) -> Message:
    """What the target says to a peer that sends this after its hello."""
    with (
        socket.create_connection(("127.0.0.1", target.port), timeout=20) as sock,
        sock.makefile("rb") as heard,
    ):
        sock.sendall(HELLO)
        heard.readline()
        sock.sendall(line)
        return decode(heard.readline().strip())


def proposal(domain: DomainConfig, intent: Intent = Intent.MOVE) -> bytes:
    return encode(Propose(uuid4(), intent, True, False, 1, domain))


def nothing_happened(target: Daemon) -> bool:
    driver = target.service._context.driver
    return (
        not call(driver.list) and not marks(target) and not list(target.service._context.boot_dir.glob("*"))
    )


#: Domains that no host would describe so: what is changed, and what the answer names.
MALFORMED: list[tuple[dict[str, Any], str]] = [
    *(
        ({"name": name}, "cannot be the name of a domain")
        for name in (
            *("../../etc/cron.d/x", ".", "..", "a,debug-threads=off", "a b", "a=b", "a\nb", "a\0b"),
            *("x" * 65, "ä", "$(id)", "a/b"),
        )
    ),
    ({"uuid": UUID(int=0)}, "UUID of zeros"),
    ({"memory_mib": 1 << 40}, "memory_mib"),
    ({"vcpus": 4096}, "vcpus"),
    ({"machine": "q35,accel=kvm"}, "names no machine"),
    ({"machine": "none -device x"}, "names no machine"),
    ({"cpu": "host,migratable=off"}, "names no cpu"),
    ({"cpu": "qemu64,+vmx"}, "names no cpu"),
    ({"hypervisor": "../qemu"}, "names no hypervisor"),
    *(
        ({"disks": (Disk(path, "xvda"),)}, told)
        for path, told in (
            ("nbd:192.0.2.1:10809", "is not absolute"),
            ("nbd+unix:///x?socket=/run/x", "is not absolute"),
            ("rbd:pool/image", "is not absolute"),
            ('json:{"driver":"host_device","filename":"/dev/sda"}', "is not absolute"),
            ("fat:rw:/etc", "is not absolute"),
            ("file:/etc/shadow", "is not absolute"),
            ("host_device:/dev/sda", "is not absolute"),
            ("disk.img", "is not absolute"),
            ("", "is not absolute"),
            (f"{INSIDE}/../OUTSIDE/shadow", "holds '..'"),
            (f"{INSIDE}/good.img,read-only=off", "holds a comma"),
            (f"{INSIDE}/good.img,,file.driver=nbd", "holds a comma"),
            (f"{INSIDE}/a\nb", "cannot be printed"),
            (f"{INSIDE}/a\0b", "cannot be printed"),
            ("/" + "x" * 2000, "longer than"),
        )
    ),
    *(
        ({"disks": (Disk(f"{INSIDE}/good.img", vdev),)}, "is not a virtual device")
        for vdev in ("vda,bootindex=1", "../vda", "xvda -snapshot", "nbd0", "x" * 100)
    ),
    *(
        ({"disks": (Disk(f"{INSIDE}/good.img", "xvda", form),)}, "is not known")
        for form in ("nbd", "host_device", "vvfat", "vmdk", "luks", "raw,x=y", "blkdebug", "json")
    ),
    ({"disks": tuple(Disk(f"{INSIDE}/{n}", f"xvd{chr(97 + n)}") for n in range(17))}, "disks"),
    *(
        ({"vifs": (evolve(VIF, bridge=bridge),)}, "cannot be the name of a bridge")
        for bridge in ("../../x", "br0,script=/tmp/x", "a b", "x" * 16, ".", "br0/../lo", "br\n0", "br;id")
    ),
    *(
        ({"vifs": (evolve(VIF, model=model),)}, "is not known")
        for model in ("vhost-user", "virtio-net,romfile=/etc/shadow", "vfio-pci")
    ),
    *(
        ({"vifs": (evolve(VIF, mac=mac),)}, told)
        for mac, told in (
            ("00:16:3e:00:00:01,x=y", "is not a MAC address"),
            ("ff:ff:ff:ff:ff:ff", "is not the address of one interface"),
            ("01:00:5e:00:00:01", "is not the address of one interface"),
        )
    ),
    ({"vifs": (evolve(VIF, ip=("127.0.0.1; id",)),)}, "is not the IP address"),
    ({"kernel": evolve(KERNEL, sha256="../../../../etc/shadow")}, "64 hexadecimal digits"),
    ({"kernel": evolve(KERNEL, path="../vmlinuz")}, "is not absolute"),
    ({"kernel": evolve(KERNEL, size_bytes=-1)}, "size_bytes"),
    ({"ramdisk": KERNEL}, "means nothing without a kernel"),
    ({"kernel": KERNEL, "extra": "quiet\n-device x"}, "cannot be printed"),
    ({"kernel": KERNEL, "extra": "x" * 4000}, "limited to"),
    ({"kernel": KERNEL, "root": "/dev/vda\0"}, "cannot be printed"),
]


def _placed(change: dict[str, Any], root: Path) -> dict[str, Any]:
    """With the real directories."""

    def place(disk: Disk) -> Disk:
        return evolve(
            disk, path=disk.path.replace(INSIDE, f"{root}/INSIDE").replace(OUTSIDE, f"{root}/OUTSIDE")
        )

    return change | ({"disks": tuple(map(place, change["disks"]))} if "disks" in change else {})


@pytest.mark.parametrize(("change", "told"), MALFORMED, ids=[repr(change)[:60] for change, _ in MALFORMED])
def test_a_description_that_is_none_ends_the_dialogue(
    target: Daemon, honest: DomainConfig, root: Path, change: dict[str, Any], told: str
) -> None:
    answer = propose(target, proposal(evolve(honest, **_placed(change, root))))
    assert isinstance(answer, Problem), answer
    assert told in answer.text
    assert answer.text.isprintable()
    assert nothing_happened(target)


#: Fields that xm, xl or QEMU know and a record does not, by where they would stand.
FIELDS = [
    *("(bootloader /bin/sh)", "(device_model /bin/sh)", "(device_model_override /bin/sh)"),
    *(
        "(device_model_args (-monitor tcp:0.0.0.0:4444))",
        "(vnc 1)",
        "(vnclisten 0.0.0.0)",
        "(serial tcp:0.0.0.0:4444)",
    ),
    *("(parallel /dev/mem)", "(pci 0000:00:1f.2)", "(usbdevice host:1234:5678)", "(firmware /etc/shadow)"),
    *("(vfb (vnc 1))", "(console_log /etc/passwd)", "(disk (path /x) (vdev xvda) (script /tmp/x))"),
    *(
        "(vif (mac 00:16:3e:00:00:01) (bridge xenbr0) (script /tmp/x))",
        "(disk (path /x) (vdev xvda) (backend 0))",
    ),
    *("(vif (mac 00:16:3e:00:00:01) (bridge xenbr0) (vifname lo))", "(name other)"),
]


@pytest.mark.parametrize("text", FIELDS)
def test_a_field_that_is_none_ends_the_dialogue(target: Daemon, honest: DomainConfig, text: str) -> None:
    line = proposal(honest)
    assert line.count(b"(name web)") == 1
    answer = propose(target, line.replace(b"(name web)", b"(name web) " + text.encode()))
    assert isinstance(answer, Problem), answer
    assert nothing_happened(target)


#: Descriptions in the right form of what this peer may not have: the check that refuses, and what it names.
REFUSED: list[tuple[dict[str, Any], str, str]] = [
    *(
        ({"disks": (Disk(path, "xvda", form),)}, "disks", told)
        for path, form, told in (
            ("/etc/shadow", "raw", "lies outside the directories"),
            ("/proc/self/mem", "raw", "lies outside the directories"),
            ("/dev/mem", "raw", "lies outside the directories"),
            ("/dev/fdset/1", "raw", "lies outside the directories"),
            (f"{OUTSIDE}/shadow", "raw", "lies outside the directories"),
            (f"{INSIDE}x/shadow", "raw", "lies outside the directories"),
            (INSIDE, "raw", "lies outside the directories"),
            (f"{INSIDE}/link.img", "raw", "does not exist"),
            (f"{INSIDE}/far.img", "raw", "does not exist"),
            (f"{INSIDE}/door/shadow", "raw", "does not exist"),
            (f"{INSIDE}/directory", "raw", "cannot be opened"),
            (f"{INSIDE}/backed.qcow2", "qcow2", "rests on"),
            (f"{INSIDE}/relative.qcow2", "qcow2", "rests on"),
            (f"{INSIDE}/linked.qcow2", "qcow2", "rests on"),
            (f"{INSIDE}/deep.qcow2", "qcow2", "rests on"),
            (f"{INSIDE}/data.qcow2", "qcow2", "keeps its data in another file"),
            (f"{INSIDE}/net.qcow2", "qcow2", "which is no path"),
            (f"{INSIDE}/json.qcow2", "qcow2", "which is no path"),
            (f"{INSIDE}/guess.qcow2", "qcow2", "does not say of which format"),
            (f"{INSIDE}/good.img", "qcow2", "is no qcow2 image"),
        )
    ),
    ({"vifs": (evolve(VIF, bridge="lo"),)}, "bridges", "no bridge lo"),
    ({"vifs": (evolve(VIF, bridge="eth0"),)}, "bridges", "no bridge eth0"),
    ({"machine": "microvm"}, "machine", "is unknown to"),
    ({"cpu": "host"}, "cpu", "is not available"),
    ({"hypervisor": "qemu"}, "virtualisation", "the domain runs on"),
    ({"architecture": "riscv64"}, "architecture", "is built for"),
    ({"memory_mib": 1 << 20}, "memory", "not enough memory"),
    ({"kernel": evolve(KERNEL, size_bytes=1 << 39)}, "boot-files", "takes at most"),
]


@pytest.mark.parametrize("intent", Intent)
@pytest.mark.parametrize(
    ("change", "check", "told"), REFUSED, ids=[repr(change)[:60] for change, _, _ in REFUSED]
)
def test_what_a_peer_may_not_have_is_refused_by_name(
    target: Daemon,
    honest: DomainConfig,
    root: Path,
    change: dict[str, Any],
    check: str,
    told: str,
    intent: Intent,
) -> None:
    answer = propose(target, proposal(evolve(honest, **_placed(change, root)), intent))
    assert not isinstance(answer, Accept | Problem), answer
    failed = [c for c in answer.checks if c.verdict.value == "fail"]  # type: ignore[union-attr]  # Refuse or Verdicts
    assert [c.name for c in failed] == [check]
    assert told in failed[0].text
    assert isinstance(answer, Refuse) is (intent is Intent.MOVE)
    assert nothing_happened(target)


@pytest.mark.parametrize("name", ["good.img", "fine.qcow2"])
def test_an_honest_one_is_welcome(target: Daemon, honest: DomainConfig, root: Path, name: str) -> None:
    """Else all of the above would prove nothing."""
    disk = Disk(str(root / "INSIDE" / name), "xvda", "qcow2" if name.endswith("qcow2") else "raw")
    answer = propose(target, proposal(evolve(honest, uuid=uuid4(), name=name, disks=(disk,))))
    assert isinstance(answer, Accept), answer
    assert settled(lambda: marks(target)[-1:] == [Mark.ABORTED], target)  # we hung up
