"""QEMU's command line: a golden one, what it refuses, and that nothing of a configuration becomes an option."""

from __future__ import annotations

from uuid import UUID

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from relocd.domain.rules import MAX_DISKS, MAX_MEMORY_MIB, MAX_VIFS
from relocd.drivers.qemu.cmdline import DiskAccess, Launch, argv
from relocd.errors import DriverError
from relocd.model import Accelerator, Action, BootFile, Disk, DomainConfig, Vif
from tests.strategies import domain_configs

CONFIG = DomainConfig(
    name="web",
    uuid=UUID("5f0c2c8e-7d6e-4b1c-9d57-0a3c5b7f9e10"),
    memory_mib=512,
    vcpus=2,
    kernel=BootFile("/boot/vmlinuz", "a" * 64, 1),
    ramdisk=BootFile("/boot/initrd", "b" * 64, 1),
    root="/dev/vda1 ro",
    extra="console=ttyS0",
    disks=(Disk("/srv/web.img", "xvda"), Disk("/dev/vg/data", "xvdb", "qcow2", readonly=True)),
    vifs=(Vif("00:16:3e:00:00:01", "xenbr0"), Vif("00:16:3e:00:00:02", "xenbr1", "e1000")),
    machine="pc-q35-7.2",
    cpu="qemu64-v1",
    accelerator=Accelerator.TCG,
)
LAUNCH = Launch(
    binary="/usr/bin/qemu-system-x86_64",
    boot_dir="/var/lib/relocd/boot",
    monitor_fd=3,
    console_socket="/run/relocd/domains/x/console.sock",
    console_log="/var/log/relocd/console-x.log",
    taps=("rl0", "rl1"),
    disks=(DiskAccess(), DiskAccess(block_device=True, direct=False)),
)
GOLDEN = """
/usr/bin/qemu-system-x86_64
-nodefaults
-no-user-config
-display
none
-msg
timestamp=on
-name
guest=web,debug-threads=on
-uuid
5f0c2c8e-7d6e-4b1c-9d57-0a3c5b7f9e10
-machine
pc-q35-7.2
-accel
tcg
-cpu
qemu64-v1
-m
size=524296K
-smp
cpus=2,sockets=1,cores=2,threads=1
-global
ICH9-LPC.disable_s3=1
-rtc
base=utc
-action
reboot=reset,shutdown=poweroff,panic=shutdown
-kernel
/var/lib/relocd/boot/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa
-initrd
/var/lib/relocd/boot/bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb
-append
root=/dev/vda1 ro console=ttyS0
-chardev
socket,id=console,path=/run/relocd/domains/x/console.sock,server=on,wait=off,logfile=/var/log/relocd/console-x.log,logappend=on
-serial
chardev:console
-chardev
socket,id=monitor,fd=3,server=on,wait=off
-mon
chardev=monitor,mode=control
-device
pvpanic
-netdev
tap,id=net0,ifname=rl0,script=no,downscript=no,vhost=off
-device
virtio-net-pci,id=nic0,netdev=net0,mac=00:16:3e:00:00:01,bus=pcie.0,addr=0x4,romfile=
-netdev
tap,id=net1,ifname=rl1,script=no,downscript=no,vhost=off
-device
e1000,id=nic1,netdev=net1,mac=00:16:3e:00:00:02,bus=pcie.0,addr=0x5,romfile=
-blockdev
driver=file,node-name=file0,filename=/srv/web.img,read-only=off,cache.direct=on
-blockdev
{"driver": "raw", "node-name": "disk0", "file": "file0", "read-only": false}
-device
virtio-blk-pci,id=vd0,drive=disk0,bus=pcie.0,addr=0xc
-blockdev
driver=host_device,node-name=file1,filename=/dev/vg/data,read-only=on,cache.direct=off
-blockdev
{"driver": "qcow2", "node-name": "disk1", "file": "file1", "read-only": true, "backing": null}
-device
virtio-blk-pci,id=vd1,drive=disk1,bus=pcie.0,addr=0xd
-sandbox
on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny
-S
""".strip().split("\n")


def after(words: list[str], name: str) -> str:
    return words[words.index(name) + 1]


def test_golden() -> None:
    assert argv(CONFIG, LAUNCH) == GOLDEN


def test_an_arrival_is_built_the_same_but_waits_for_its_stream() -> None:
    assert argv(CONFIG, evolve(LAUNCH, incoming=True)) == [*GOLDEN, "-incoming", "defer"]


def test_a_qemu_that_becomes_another_user_may_do_so() -> None:
    words = argv(CONFIG, evolve(LAUNCH, run_as=("-runas", "relocd-qemu")))
    assert after(words, "-runas") == "relocd-qemu"
    assert (
        after(words, "-sandbox") == "on,obsolete=deny,elevateprivileges=allow,spawn=deny,resourcecontrol=deny"
    )


def test_the_least_domain() -> None:
    config = DomainConfig(
        "tiny", CONFIG.uuid, 1, machine="pc-i440fx-7.2", cpu="qemu64", accelerator=Accelerator.KVM_SVM
    )
    words = argv(config, evolve(LAUNCH, taps=(), disks=(), sandbox=False))
    assert after(words, "-accel") == "kvm"
    assert after(words, "-m") == "size=1024K"
    assert after(words, "-global") == "PIIX4_PM.disable_s3=1"
    assert not {"-kernel", "-append", "-initrd", "-netdev", "-blockdev", "-sandbox"} & set(words)


def test_the_old_pc_has_another_bus() -> None:
    words = argv(evolve(CONFIG, machine="pc-i440fx-7.2"), LAUNCH)
    devices = [word for word in words if "addr=" in word]
    assert len(devices) == 4
    assert all("bus=pci.0" in device for device in devices)


def test_as_many_devices_as_the_rules_allow_have_a_slot_each() -> None:
    vif, disk = CONFIG.vifs[0], CONFIG.disks[0]
    config = evolve(CONFIG, vifs=(vif,) * MAX_VIFS, disks=(disk,) * MAX_DISKS)
    launch = evolve(LAUNCH, taps=("rl",) * MAX_VIFS, disks=(DiskAccess(),) * MAX_DISKS)
    slots = [word.partition("addr=")[2].partition(",")[0] for word in argv(config, launch) if "addr=" in word]
    assert len(set(slots)) == MAX_VIFS + MAX_DISKS
    assert max(int(slot, 16) for slot in slots) < 0x1E


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architecture": "aarch64"}, "x86_64 guests"),
        ({"machine": "microvm"}, "machine type 'microvm'"),
        ({"machine": ""}, "machine type ''"),
        ({"machine": "pc-q35-7.2,accel=kvm"}, "machine"),
        ({"cpu": "qemu64,+svm"}, "CPU model"),
        ({"cpu": ""}, "CPU model"),
        ({"accelerator": None}, "no accelerator"),
        ({"kernel": BootFile("/boot/vmlinuz")}, "SHA-256"),
        ({"kernel": BootFile("/boot/vmlinuz", "../../etc/shadow")}, "SHA-256"),
        ({"extra": "console=ttyS0\n-device"}, "command line"),
        ({"vifs": (Vif("00:16:3e:00:00:01", "br0", "vhost-user"),) * 2}, "network card model"),
        ({"disks": (Disk("/x", "xvda", "vvfat"),) * 2}, "disk format"),
        ({"vifs": CONFIG.vifs * MAX_VIFS}, "network interfaces"),
        ({"disks": CONFIG.disks * MAX_DISKS}, "disks"),
    ],
)
def test_what_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(DriverError, match=message):
        argv(evolve(CONFIG, **change), LAUNCH)  # type: ignore[arg-type]  # one table for fields of all types


@given(domain_configs())
def test_nothing_of_a_configuration_becomes_an_option(config: DomainConfig) -> None:
    fixed = evolve(
        config,
        architecture="x86_64",
        machine="pc-q35-7.2",
        cpu="qemu64",
        accelerator=Accelerator.TCG,
        kernel=CONFIG.kernel if config.kernel else None,
        ramdisk=CONFIG.ramdisk if config.ramdisk else None,
    )
    launch = evolve(
        LAUNCH,
        taps=tuple(f"rl{index}" for index in range(len(fixed.vifs))),
        disks=(DiskAccess(),) * len(fixed.disks),
    )
    words = argv(fixed, launch)
    plain = evolve(fixed, name="web", root="r" if fixed.root else "", extra="e" if fixed.extra else "")
    plain = evolve(plain, disks=tuple(evolve(disk, path="/x") for disk in fixed.disks))
    expected = argv(plain, launch)
    assert len(words) == len(expected)
    for word, other in zip(words, expected, strict=True):
        if word != other:  # only where a text of the configuration stands, and commas in it are doubled
            assert other.startswith(("guest=web,", "driver=", "root=r", "r", "e")), (word, other)
            if other.startswith(("guest=", "driver=")):
                assert word.replace(",,", "").count(",") == other.count(",")


@given(memory_mib=st.integers(1, MAX_MEMORY_MIB))
def test_emulated_memory_is_no_multiple_of_64_pages(memory_mib: int) -> None:
    """QEMU 7.2 would lose the guest's writes: see the reason in the module."""
    size = after(argv(evolve(CONFIG, memory_mib=memory_mib), LAUNCH), "-m")
    assert int(size.removeprefix("size=").removesuffix("K")) % (64 * 4) != 0


@pytest.mark.parametrize("action", Action)
def test_the_actions_of_a_domain_reach_qemu(action: Action) -> None:
    words = argv(evolve(CONFIG, on_poweroff=action), LAUNCH)
    assert ("shutdown=poweroff" in after(words, "-action")) is (action is Action.DESTROY)
