"""Domain records."""

from __future__ import annotations

from uuid import UUID

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from relocd.domain import rules
from relocd.domain.record import from_sxp, to_sxp
from relocd.errors import ConfigError
from relocd.model import Accelerator, BootFile, Disk, DomainConfig, Vif
from relocd.sxp import dumps, parse_one, pretty
from tests.strategies import domain_configs

UUID_TEXT = "5b4f7e0a-3a52-4f0e-8d0c-0c8f1f8f6a11"
SMALL = DomainConfig(name="web", uuid=UUID(UUID_TEXT), memory_mib=256)
FULL = evolve(
    SMALL,
    vcpus=2,
    machine="pc-q35-7.2",
    cpu="qemu64",
    accelerator=Accelerator.TCG,
    kernel=BootFile("/boot/vmlinuz", "ab" * 32, 4711),
    ramdisk=BootFile("/boot/initrd.gz"),
    root="/dev/xvda ro",
    extra="console=ttyS0 quiet",
    disks=(Disk("/srv/web.img", "xvda"), Disk("/srv/cd.iso", "hdc", readonly=True)),
    vifs=(Vif("00:16:3e:00:00:01", "xenbr0", ip=("192.0.2.7", "2001:db8::7")),),
)
FULL_TEXT = f"""\
(domain
    (name web)
    (uuid {UUID_TEXT})
    (memory_mib 256)
    (vcpus 2)
    (hypervisor qemu)
    (architecture x86_64)
    (machine pc-q35-7.2)
    (cpu qemu64)
    (accelerator tcg)
    (root '/dev/xvda ro')
    (extra 'console=ttyS0 quiet')
    (on_poweroff destroy)
    (on_reboot restart)
    (on_crash destroy)
    (kernel (path /boot/vmlinuz) (sha256 {"ab" * 32}) (size_bytes 4711))
    (ramdisk (path /boot/initrd.gz) (size_bytes 0))
    (disk (path /srv/web.img) (vdev xvda) (format raw) (readonly no))
    (disk (path /srv/cd.iso) (vdev hdc) (format raw) (readonly yes))
    (vif (mac 00:16:3e:00:00:01) (bridge xenbr0) (model virtio-net) (ip 192.0.2.7 2001:db8::7))
)"""


def fails(text: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        from_sxp(parse_one(text), source="peer")
    return caught.value


def record(fields: str) -> str:
    return f"(domain (name web) (uuid {UUID_TEXT}) (memory_mib 256)\n {fields})"


@given(domain_configs())
def test_a_record_is_exact(config: DomainConfig) -> None:
    assert not list(rules.problems(config))
    assert from_sxp(parse_one(dumps(to_sxp(config)))) == config


def test_how_a_record_looks() -> None:
    assert pretty(to_sxp(FULL), width=140) == FULL_TEXT
    assert from_sxp(parse_one(FULL_TEXT)) == FULL


def test_what_may_be_left_out() -> None:
    assert from_sxp(parse_one(record(""))) == SMALL


def test_optional_fields_of_later_versions_are_skipped() -> None:
    assert from_sxp(
        parse_one(record("(x-colour red) (disk (path /a) (vdev xvda) (x-cache none))"))
    ) == evolve(SMALL, disks=(Disk("/a", "xvda"),))


@pytest.mark.parametrize(
    ("text", "line", "column", "reason"),
    [
        ("domain", 1, 1, "a list that begins with 'domain'"),
        ("()", 1, 1, "a list that begins with 'domain'"),
        ("(vm (name web))", 1, 1, "a list that begins with 'domain'"),
        ("(domain)", 1, 1, "lacks the field 'name'"),
        (f"(domain (name web) (uuid {UUID_TEXT}))", 1, 1, "lacks the field 'memory_mib'"),
        (record("web"), 2, 2, "(field value) lists only"),
        (record("()"), 2, 2, "(field value) lists only"),
        (record("((name) web)"), 2, 2, "(field value) lists only"),
        (record("(vcpu 2)"), 2, 3, "has no field 'vcpu'"),
        (record("(name web)"), 2, 2, "'name' appears twice"),
        (record("(vcpus)"), 2, 2, "takes one text"),
        (record("(vcpus 1 2)"), 2, 2, "takes one text"),
        (record("(vcpus (1))"), 2, 2, "takes one text"),
        (record("(vcpus 0)"), 2, 9, "whole number from 1 to 255"),
        (record("(vcpus 256)"), 2, 9, "whole number from 1 to 255"),
        (record("(vcpus -1)"), 2, 9, "whole number"),
        (record("(vcpus 1.5)"), 2, 9, "whole number"),
        (record(f"(vcpus {'9' * 5000})"), 2, 9, "whole number"),
        (record("(vcpus '\u0664')"), 2, 9, "whole number"),
        (record("(accelerator kvm)"), 2, 15, "one of tcg, kvm-vmx, kvm-svm"),
        (record("(on_crash rename-restart)"), 2, 12, "one of destroy, restart, preserve"),
        (record("(hypervisor 'qemu,x')"), 2, 2, "names no hypervisor"),
        (record("(machine 'pc -S')"), 2, 2, "names no machine"),
        (record("(cpu 'host,migratable=off')"), 2, 2, "names no cpu"),
        (record("(kernel /boot/vmlinuz)"), 2, 10, "'kernel' holds (field value) lists only"),
        (record("(kernel (size_bytes 1))"), 2, 2, "'kernel' lacks the field 'path'"),
        (record("(kernel (path /k) (size_bytes 1099511627777))"), 2, 32, "whole number"),
        (record("(kernel (path /k) (sha256 ../../etc/shadow))"), 2, 2, "64 hexadecimal digits"),
        (record("(kernel (path k))"), 2, 2, "not absolute"),
        (record("(kernel (path /boot/../etc/k))"), 2, 2, "holds '..'"),
        (record("(kernel (path '/a\\nb'))"), 2, 2, "cannot be printed"),
        (record("(kernel (path '/a\\0b'))"), 2, 2, "cannot be printed"),
        (record(f"(kernel (path /{'a' * 1024}))"), 2, 2, "longer than 1024"),
        (record("(ramdisk (path /r))"), 2, 2, "ramdisk means nothing without a kernel"),
        (record("(root /dev/xvda)"), 2, 2, "root means nothing without a kernel"),
        (record("(kernel (path /k))\n (extra 'a\\nb')"), 3, 2, "extra holds a character"),
        (record(f"(kernel (path /k))\n (extra {'a' * 2049})"), 3, 2, "extra is limited to 2048"),
        (record("(disk (path /a,file=/etc/shadow) (vdev xvda))"), 2, 2, "holds a comma"),
        (record("(disk (path /a) (vdev xvda))\n (disk (path /b) (vdev ../x))"), 3, 2, "not a virtual device"),
        (record("(disk (path /a) (vdev xvda))\n (disk (path /b) (vdev xvda))"), 3, 2, "appears twice"),
        (record("(disk (path /a) (vdev xvda))\n (disk (path /a) (vdev xvdb))"), 2, 2, "used by another disk"),
        (record("(disk (path /a) (vdev xvda) (format vmdk))"), 2, 2, "'vmdk' is not known"),
        (record("(disk (path /a) (vdev xvda) (readonly 1))"), 2, 40, "one of yes, no"),
        (record("(vif (mac 00:16:3e:00:00:01))"), 2, 2, "'vif' lacks the field 'bridge'"),
        (record("(vif (mac 00:16:3E:00:00:01) (bridge b))"), 2, 2, "not a MAC address"),
        (record("(vif (mac 01:16:3e:00:00:01) (bridge b))"), 2, 2, "not the address of one interface"),
        (record("(vif (mac 00:00:00:00:00:00) (bridge b))"), 2, 2, "not the address of one interface"),
        (record("(vif (mac 00:16:3e:00:00:01) (bridge a/b))"), 2, 2, "name of a bridge"),
        (record("(vif (mac 00:16:3e:00:00:01) (bridge ..))"), 2, 2, "name of a bridge"),
        (record("(vif (mac 00:16:3e:00:00:01) (bridge br0123456789abcd))"), 2, 2, "name of a bridge"),
        (record("(vif (mac 00:16:3e:00:00:01) (bridge b) (model ne2k))"), 2, 2, "model 'ne2k' is not known"),
        (record("(vif (mac 00:16:3e:00:00:01) (bridge b) (ip 10.0.0.0/8))"), 2, 2, "not the IP address"),
        (record("(vif (mac 00:16:3e:00:00:01) (bridge b) (ip 224.0.0.1))"), 2, 2, "not the IP address"),
        (record("(vif (mac 00:16:3e:00:00:01) (bridge b) (ip (1)))"), 2, 42, "takes texts only"),
    ],
)
def test_what_a_peer_may_not_say(text: str, line: int, column: int, reason: str) -> None:
    error = fails(text)
    assert reason in error.reason
    assert (error.source, error.line, error.column) == ("peer", line, column)


@pytest.mark.parametrize(
    ("identity", "reason"),
    [
        (f"(name 'a b') (uuid {UUID_TEXT})", "cannot be the name"),
        (f"(name ../web) (uuid {UUID_TEXT})", "cannot be the name"),
        (f"(name '') (uuid {UUID_TEXT})", "cannot be the name"),
        (f"(name ..) (uuid {UUID_TEXT})", "cannot be the name"),
        (f"(name {'a' * 65}) (uuid {UUID_TEXT})", "cannot be the name"),
        (f"(name web) (uuid {{{UUID_TEXT}}})", "takes one text"),
        (f"(name web) (uuid {UUID_TEXT.upper()})", "is not a UUID"),
        ("(name web) (uuid 00000000-0000-0000-0000-000000000000)", "UUID of zeros"),
    ],
)
def test_identity(identity: str, reason: str) -> None:
    assert reason in fails(f"(domain {identity} (memory_mib 1))").reason


@pytest.mark.parametrize(
    ("part", "limit", "reason"),
    [
        ("(disk (path /{0}) (vdev xvd{1}))", 16, "more than 16 disks"),
        ("(vif (mac 00:16:3e:00:00:{0:02x}) (bridge b))", 8, "more than 8 virtual network interfaces"),
    ],
)
def test_counts(part: str, limit: int, reason: str) -> None:
    parts = [part.format(index, chr(ord("a") + index)) for index in range(limit + 1)]
    assert from_sxp(parse_one(record("\n".join(parts[:-1]))))
    error = fails(record("\n".join(parts)))
    assert error.reason == reason
    assert error.line == limit + 2


def test_a_readonly_disk_may_be_attached_twice() -> None:
    disks = "(disk (path /a) (vdev hda) (readonly yes)) (disk (path /a) (vdev hdb) (readonly yes))"
    assert len(from_sxp(parse_one(record(disks))).disks) == 2


def test_a_wrong_name_gets_the_right_one_offered() -> None:
    assert fails(record("(memmory_mib 2)")).hint == "Did you mean 'memory_mib'?"


@given(st.text(st.sampled_from("() '\"\\#x-abdiomnkvf0:./,\n")) | st.text())
def test_any_text_is_a_domain_or_a_config_error(text: str) -> None:
    try:
        config = from_sxp(parse_one(record(text)))
    except ConfigError:
        return
    assert from_sxp(parse_one(dumps(to_sxp(config)))) == config
