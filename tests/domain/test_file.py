"""Domain files, from text to a domain."""

from __future__ import annotations

import contextlib
import re
from itertools import count
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from relocd.domain.file import Parsed, parse_domain_file
from relocd.domain.foreign import WITHOUT_MEANING
from relocd.domain.keys import KEYS
from relocd.domain.record import from_sxp, to_sxp
from relocd.errors import ConfigError
from relocd.model import Action, BootFile, Disk, DomainConfig, Vif
from relocd.sxp import dumps, parse_one, pretty
from tests.strategies import domain_configs

NEW_UUID = UUID("11111111-2222-4333-8444-555555555555")
SMALL = "name = 'web'\nmemory = 256\n"
WEB = DomainConfig(name="web", uuid=NEW_UUID, memory_mib=256)


def parse(text: str, **overrides: str) -> Parsed:
    macs = (f"00:16:3e:00:00:{number:02x}" for number in count(1))
    return parse_domain_file(
        text, source="f", overrides=overrides, new_uuid=lambda: NEW_UUID, new_mac=lambda: next(macs)
    )


def config(text: str, **overrides: str) -> DomainConfig:
    parsed = parse(text + "\nkernel = '/k'\n" if text.startswith(SMALL) else text, **overrides)
    assert parsed.warnings == ()
    return parsed.config


def fails(text: str, **overrides: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        parse(text, **overrides)
    return caught.value


# -- files as they are found ---------------------------------------------------------------------------

XM = """\
#  -*- mode: python; -*-
#============================================================================
# Python configuration setup for 'xm create'.
#============================================================================

kernel = "/boot/vmlinuz-2.6-xenU"
ramdisk = "/boot/initrd.gz"
memory = 64
name = "ExampleDomain"
#vcpus = 4
vif = [ 'mac=00:16:3e:00:00:11, bridge=xenbr0', '' ]
disk = [ 'phy:hda1,hda1,w', 'file:/srv/swap.img,hda2,w' ]
root = "/dev/hda1 ro"
extra = "4"
on_poweroff = 'destroy'
on_reboot   = 'restart'
on_crash    = 'preserve'
"""

XL = """\
type = "pvh"
name = "web.example.org"
uuid = "5B4F7E0A-3A52-4F0E-8D0C-0C8F1F8F6A11"
kernel = "/boot/vmlinuz"; ramdisk = "/boot/initrd.img"
cmdline = "root=/dev/xvda " \\
          "ro console=hvc0"
memory = 1024
maxmem = 2048
vcpus = 2
vif = [ 'mac=00:16:3E:01:02:03,bridge=br-dmz,ip=192.0.2.7,model=e1000', ]
disk = [
    '/dev/vg0/web,raw,xvda,rw',      # the system
    'format=qcow2, vdev=xvdb, access=ro, target=/srv/data.qcow2',
]
vnc = 1
vfb = [ [ 'type=vnc' ] ]
"""


def test_a_file_of_xm() -> None:
    parsed = parse(XM)
    assert parsed.warnings == ()
    assert parsed.config == DomainConfig(
        name="ExampleDomain",
        uuid=NEW_UUID,
        memory_mib=64,
        kernel=BootFile("/boot/vmlinuz-2.6-xenU"),
        ramdisk=BootFile("/boot/initrd.gz"),
        root="/dev/hda1 ro",
        extra="4",
        disks=(Disk("/dev/hda1", "hda1"), Disk("/srv/swap.img", "hda2")),
        vifs=(Vif("00:16:3e:00:00:11", "xenbr0"), Vif("00:16:3e:00:00:01", "xenbr0")),
        on_crash=Action.PRESERVE,
    )


def test_a_file_of_xl() -> None:
    parsed = parse(XL)
    assert parsed.config == DomainConfig(
        name="web.example.org",
        uuid=UUID("5b4f7e0a-3a52-4f0e-8d0c-0c8f1f8f6a11"),
        memory_mib=1024,
        vcpus=2,
        kernel=BootFile("/boot/vmlinuz"),
        ramdisk=BootFile("/boot/initrd.img"),
        extra="root=/dev/xvda ro console=hvc0",
        disks=(Disk("/dev/vg0/web", "xvda"), Disk("/srv/data.qcow2", "xvdb", "qcow2", readonly=True)),
        vifs=(Vif("00:16:3e:01:02:03", "br-dmz", "e1000", ("192.0.2.7",)),),
    )
    assert parsed.warnings == (
        "f:1:1: 'type' has no meaning here. Every domain is a PC with the devices that its file names.",
        "f:15:1: 'vnc' has no meaning here. A domain has a serial console and no screen.",
        "f:16:1: 'vfb' has no meaning here. A domain has a serial console and no screen.",
        "f:8:10: this is overlooked: a domain keeps the memory and processors it starts with",
    )


# -- keys ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "change"),
    [
        ("memory = '512'", {"memory_mib": 512}),
        ("memory = 0x200", {"memory_mib": 512}),
        ("name = 123", {"name": "123"}),
        ("vcpus = 4; maxvcpus = 4", {"vcpus": 4}),
        ("maxmem = 256", {}),
        ("extra = 'quiet'", {"extra": "quiet"}),
        ("cmdline = 'quiet'", {"extra": "quiet"}),
        ("root = '/dev/xvda ro'", {"root": "/dev/xvda ro"}),
        ("cpu = 'Nehalem'", {"cpu": "Nehalem"}),
        ("machine = 'pc-q35-7.2'", {"machine": "pc-q35-7.2"}),
        (
            "uuid = '{5b4f7e0a3a524f0e8d0c0c8f1f8f6a11}'",
            {"uuid": UUID("5b4f7e0a-3a52-4f0e-8d0c-0c8f1f8f6a11")},
        ),
        ("on_poweroff = 'preserve'", {"on_poweroff": Action.PRESERVE}),
        ("on_reboot = 'destroy'", {"on_reboot": Action.DESTROY}),
        ("disk = 'phy:/dev/x,xvda,w'", {"disks": (Disk("/dev/x", "xvda"),)}),
        ("disk = []; vif = []", {}),
        ("vif = [ '' ]", {"vifs": (Vif("00:16:3e:00:00:01", "xenbr0"),)}),
    ],
)
def test_keys(line: str, change: dict[str, Any]) -> None:
    settings = {key.strip() for key in re.findall(r"(\w+) =", line)}
    text = "".join(old for old in SMALL.splitlines(keepends=True) if old.split()[0] not in settings)
    parsed = parse(f"{text}kernel = '/k'\n{line}")
    assert parsed.warnings == ()
    assert parsed.config == evolve(evolve(WEB, kernel=BootFile("/k")), **change)


@pytest.mark.parametrize(
    ("text", "line", "column", "reason"),
    [
        ("", 0, 0, "the domain has no name"),
        ("name = 'web'", 0, 0, "the domain has no memory"),
        ("name = 'a b'\nmemory = 1", 1, 8, "cannot be the name of a domain"),
        ("name = ['web']\nmemory = 1", 1, 8, "'name' must be a string"),
        ("name = 1.5\nmemory = 1", 1, 8, "'name' must be a string"),
        ("name = 'web'\nmemory = 0", 2, 10, "'memory' must be a whole number from 1 to 1048576, not '0'"),
        ("name = 'web'\nmemory = 1048577", 2, 10, "'memory' must be a whole number"),
        ("name = 'web'\nmemory = '1G'", 2, 10, "'memory' must be a whole number"),
        ("name = 'web'\nmemory = -1", 2, 10, "'memory' must be a whole number"),
        ("name = 'web'\nmemory = 0.5", 2, 10, "'memory' must be a string"),
        (SMALL + "vcpus = 256", 3, 9, "'vcpus' must be a whole number from 1 to 255"),
        (SMALL + "maxmem = 'much'", 3, 10, "'maxmem' must be a whole number"),
        (SMALL + "uuid = 'x'", 3, 8, "'x' is not a UUID"),
        (SMALL + "uuid = '00000000-0000-0000-0000-000000000000'", 3, 8, "a UUID of zeros"),
        (SMALL + "kernel = 'vmlinuz'", 3, 10, "is not absolute"),
        (SMALL + "kernel = '/boot/a,b'", 3, 10, "holds a comma"),
        (SMALL + "kernel = '/boot/../k'", 3, 10, "holds '..'"),
        (SMALL + "ramdisk = '/r'", 3, 11, "ramdisk means nothing without a kernel"),
        (SMALL + "kernel = '/k'\nextra = 'a\\nb'", 4, 9, "a character that cannot be printed"),
        (SMALL + f"kernel = '/k'\nroot = '{'a' * 2049}'", 4, 8, "limited to 2048"),
        (SMALL + "on_crash = 'rename-restart'", 3, 12, "'on_crash' cannot be 'rename-restart'"),
        (SMALL + "on_crash = 'coredump-destroy'", 3, 12, "'on_crash' cannot be 'coredump-destroy'"),
        (SMALL + "cpu = 'host,+vmx'", 3, 7, "names no cpu"),
        (SMALL + "disk = [ 'phy:/dev/x,xvda,w',\n 'phy:/dev/y,xvda,w' ]", 4, 2, "'xvda' appears twice"),
        (SMALL + "disk = [ 'phy:/dev/x,xvda,w',\n 'phy:/dev/x,xvdb,r' ]", 3, 10, "used by another disk"),
        (SMALL + "disk = [ 'phy:/dev/x,xvda,w', 'x' ]", 3, 31, "names no virtual device"),
        (SMALL + "disk = [ 'phy:/dev/x,tty,w' ]", 3, 10, "'tty' is not a virtual device"),
        (SMALL + "disk = [ 'tap:vhd:/srv/x,xvda,w' ]", 3, 10, "disk format 'vhd' is not known"),
        (SMALL + "disk = [ [ 'phy:/dev/x,xvda,w' ] ]", 3, 10, "'disk' must be a string"),
        (SMALL + "vif = [ 'mac=aa:bb' ]", 3, 9, "is not a MAC address"),
        (SMALL + "vif = [ 'mac=01:16:3e:00:00:01' ]", 3, 9, "not the address of one interface"),
        (SMALL + "vif = [ '', 'mac=00:16:3e:00:00:01' ]", 3, 13, "'00:16:3e:00:00:01' appears twice"),
        (SMALL + "vif = [ 'bridge=a/b' ]", 3, 9, "name of a bridge"),
        (SMALL + "vif = [ 'ip=192.0.2.1/24' ]", 3, 9, "not the IP address of a host"),
        (SMALL + "vif = [ 'model=ne2k_pci' ]", 3, 9, "model 'ne2k_pci' is not known"),
        (SMALL + "vif = [" + "''," * 9 + "]", 3, 32, "more than 8"),
    ],
)
def test_errors_have_a_place(text: str, line: int, column: int, reason: str) -> None:
    error = fails(text)
    assert reason in error.reason
    assert (error.source, error.line, error.column) == ("f", line, column)


def test_the_disk_too_many_is_pointed_at() -> None:
    disks = "".join(f"  'phy:/dev/{n},xvd{chr(ord('a') + n)},w',\n" for n in range(17))
    error = fails(f"{SMALL}disk = [\n{disks}]")
    assert (error.line, error.column, error.reason) == (3 + 17, 3, "more than 16 disks")


def test_what_is_refused_in_words_says_what_there_is() -> None:
    assert fails(SMALL + "on_crash = 'rename-restart'").hint == "Use one of destroy, restart, preserve."


# -- warnings ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", WITHOUT_MEANING)
def test_what_has_no_meaning_here(key: str) -> None:
    (warning,) = parse(f"{SMALL}kernel='/k'\n{key} = [ 'any', 1 ]").warnings
    assert warning.startswith(f"f:4:1: '{key}' has no meaning here.")


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        ("memmory = 1", "f:4:1: there is no key 'memmory', and it was overlooked. Did you mean 'memory'?"),
        ("colour = 1", "f:4:1: there is no key 'colour', and it was overlooked."),
        ("name = 'web'", "f:4:1: 'name' is set in line 1 already; this one counts"),
        ("kernel = '/k'", "f:4:1: 'kernel' is set in line 3 already; this one counts"),
        ("extra = 'a'\ncmdline = 'b'", "f:5:1: 'cmdline' is set in line 4 already; this one counts"),
        ("cpu = 2", "f:4:7: the number of a processor has no meaning here; 'cpu' names a model"),
        (
            "maxvcpus = 8",
            "f:4:12: this is overlooked: a domain keeps the memory and processors it starts with",
        ),
        ("vif = ['script=x']", "f:4:8: 'script' has no meaning for a virtual network interface here"),
    ],
)
def test_warnings(text: str, warning: str) -> None:
    assert parse(f"{SMALL}kernel = '/k'\n{text}").warnings == (warning,)


def test_the_last_of_two_counts() -> None:
    assert parse(SMALL + "memory = 512").config.memory_mib == 512


def test_nothing_to_boot_from() -> None:
    (warning,) = parse(SMALL).warnings
    assert warning == "f: the domain has neither a kernel nor a disk to boot from"


# -- settings on the command line ----------------------------------------------------------------------


def test_overrides_win_without_a_word() -> None:
    found = config(
        SMALL, name='"other"', memory="512", extra="console=ttyS0 quiet", disk="['phy:/dev/x,xvda,w']"
    )
    assert found == evolve(
        WEB,
        name="other",
        memory_mib=512,
        kernel=BootFile("/k"),
        extra="console=ttyS0 quiet",
        disks=(Disk("/dev/x", "xvda"),),
    )


def test_overrides_may_say_everything() -> None:
    assert config("", name="007", memory="256", kernel="/k") == evolve(WEB, name="007", kernel=BootFile("/k"))


@pytest.mark.parametrize(
    ("overrides", "text"),
    [
        ({"memory": "much"}, "memory=much: 'memory' must be a whole number from 1 to 1048576, not 'much'"),
        ({"name": "a b"}, "name=a b: 'a b' cannot be the name of a domain"),
        ({"disk": "[phy:/dev/x,xvda,w]"}, "disk=[phy:/dev/x,xvda,w]: expected a value, ',' or ']'"),
    ],
)
def test_errors_in_overrides_name_them(overrides: dict[str, str], text: str) -> None:
    assert str(fails(SMALL, **overrides)).startswith(text)


def test_unknown_overrides_are_reported() -> None:
    assert "memmory=1: there is no key 'memmory'" in parse(SMALL, memmory="1").warnings[0]


# -- S-expressions -------------------------------------------------------------------------------------


@given(domain_configs())
def test_a_record_is_a_domain_file(domain: DomainConfig) -> None:
    for text in (dumps(to_sxp(domain)), "# a comment\n\n " + pretty(to_sxp(domain))):
        assert parse(text).config == domain


def test_what_relocd_can_choose_may_be_left_out() -> None:
    second = "(vif (mac 00:16:3e:00:00:02) (bridge br1))"
    text = f"(domain (name web) (kernel (path /k))\n (memory_mib 256) (vif) {second})"
    assert parse(text).config == evolve(
        WEB,
        kernel=BootFile("/k"),
        vifs=(Vif("00:16:3e:00:00:01", "xenbr0"), Vif("00:16:3e:00:00:02", "br1")),
    )


def test_overrides_win_over_a_record() -> None:
    text = dumps(to_sxp(evolve(WEB, kernel=BootFile("/k", "ab" * 32, 5))))
    found = parse(text, memory="512", extra="quiet")
    assert found.config == evolve(WEB, memory_mib=512, extra="quiet", kernel=BootFile("/k", "ab" * 32, 5))
    assert "memory=0: " in str(fails(text, memory="0"))


@pytest.mark.parametrize(
    ("text", "line", "column", "reason"),
    [
        ("(domain (name web)", 1, 1, "never closed"),
        ("(domain (name web))", 1, 1, "lacks the field 'memory_mib'"),
        ("\n(vm (name web) (memory 64))", 2, 1, "(vm ...) is not understood"),
        ("(domain (name web)\n (memory_mib 1) (vif (mac x)))", 2, 17, "'x' is not a MAC address"),
        ("()", 1, 1, "a list that begins with 'domain'"),
        ("(domain) (domain)", 1, 10, "unexpected second value"),
    ],
)
def test_errors_in_records_have_a_place(text: str, line: int, column: int, reason: str) -> None:
    error = fails(text)
    assert reason in error.reason
    assert (error.source, error.line, error.column) == ("f", line, column)


# -- any text, and the manual --------------------------------------------------------------------------

lines = st.builds(
    "{} = {}".format,
    st.sampled_from([*KEYS, "vnc", "nonsense"]),
    st.sampled_from(
        ["1", "'a'", "'/a'", "['/a,raw,xvda', 'phy:b,xvdb,r']", "['mac=x']", "''", "[]", "restart"]
    ),
)


@given(
    st.lists(lines).map("\n".join) | st.text(),
    st.dictionaries(st.sampled_from([*KEYS]), st.text(), max_size=2),
)
def test_any_text_is_a_domain_or_a_config_error(text: str, overrides: dict[str, str]) -> None:
    with contextlib.suppress(ConfigError):
        domain = parse(text, **overrides).config
        assert from_sxp(parse_one(dumps(to_sxp(domain)))) == domain


def test_the_manual_names_every_key() -> None:
    manual = (Path(__file__).parents[2] / "docs/domain-file.md").read_text()
    assert [key for key in [*KEYS, *WITHOUT_MEANING] if not re.search(rf"`{key}`", manual)] == []


def test_the_examples_of_the_manual_are_domains() -> None:
    manual = (Path(__file__).parents[2] / "docs/domain-file.md").read_text()
    examples = re.findall(r"```[a-z]*\n(.*?)```", manual, re.DOTALL)
    assert len(examples) >= 3
    for example in examples:
        assert parse(example).warnings == ()
