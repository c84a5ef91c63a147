"""What xl is told, and what it prints: the configuration of a domain, the list, the facts."""

from __future__ import annotations

from uuid import UUID

import pytest
from attrs import evolve

from relocd.drivers.qemu.lifecycle import Cause
from relocd.drivers.xen.listing import parse_info, parse_list
from relocd.drivers.xen.xl import reason
from relocd.drivers.xen.xlconfig import facts_from, fixed, quoted, xl_config
from relocd.errors import DriverError
from relocd.model import Accelerator, BootFile, Disk, DomainConfig, Vif

UUID_ = UUID("0f2e1dd6-6f04-4788-931e-7876b2a7636d")
INFO = """\
host                   : xen1
virt_caps              : pv hvm hap shadow gnttab-v1 gnttab-v2
free_memory            : 875
xen_version            : 4.17.5
xen_caps               : xen-3.0-x86_64 hvm-3.0-x86_32 hvm-3.0-x86_32p hvm-3.0-x86_64
"""
LIST = """\
Name                                        ID   Mem VCPUs\tState\tTime(s) UUID Reason-Code\tSecurity Label
Domain-0                                     0   768     1     r-----      46.7 00000000-0000-0000-0000-000000000000        -                -
web                                          7   128     2     --p---       3.1 0f2e1dd6-6f04-4788-931e-7876b2a7636d        -                -
a b--incoming                                8    64     1     ---ss-      21.5 1f2e1dd6-6f04-4788-931e-7876b2a7636d        2                -
(null)                                       9     1     1     --ps-d       0.0 2f2e1dd6-6f04-4788-931e-7876b2a7636d        0                -
"""  # noqa: E501 - as xl prints it
CONFIG = DomainConfig(
    name="web",
    uuid=UUID_,
    memory_mib=128,
    vcpus=2,
    kernel=BootFile("/boot/vmlinuz", "ab" * 32, 10),
    root="/dev/xvda1",
    extra='console=hvc0 say="hello"',
    disks=(Disk("/srv/a,b.img", "xvda", readonly=True),),
    vifs=(Vif("00:16:3e:00:00:01", "xenbr0"),),
)


def facts(caps: str = "xen-3.0-x86_64 hvm-3.0-x86_64") -> dict[str, str]:
    return {"xen_caps": caps, "xen_version": "4.17.5"}


def test_a_domain_is_described_in_full_and_what_a_value_holds_stays_in_it() -> None:
    text = xl_config(fixed(CONFIG, facts_from(facts())), "/boot-store", "web--incoming")
    assert 'name = "web--incoming"\n' in text
    assert 'type = "pvh"\n' in text
    assert f'kernel = "/boot-store/{"ab" * 32}"\n' in text
    assert 'cmdline = "root=/dev/xvda1 console=hvc0 say=\\"hello\\""\n' in text
    assert 'disk = [ "format=raw,vdev=xvda,access=ro,target=/srv/a,b.img" ]\n' in text
    assert 'vif = [ "mac=00:16:3e:00:00:01,bridge=xenbr0" ]\n' in text
    assert "script" not in text


@pytest.mark.parametrize("text", ["a\nb", "a\0b", "\x1b[2J"])
def test_what_cannot_stand_in_a_file_of_xl_is_refused(text: str) -> None:
    with pytest.raises(DriverError, match="cannot be told to xl"):
        quoted(text)


def test_a_comma_does_not_add_an_option() -> None:
    bad = evolve(CONFIG, vifs=(Vif("00:16:3e:00:00:01", "xenbr0,script=/tmp/evil"),))
    with pytest.raises(DriverError, match="comma"):
        xl_config(fixed(bad, facts_from(facts())), "/boot-store", "web")


def test_what_a_host_offers_is_what_its_xen_says() -> None:
    offered = facts_from(parse_info(INFO))
    assert offered.version == "4.17.5"
    assert offered.accelerators == {Accelerator.XEN_PV, Accelerator.XEN_HVM}
    assert offered.machines == {"pv", "pvh"}
    assert facts_from(facts("xen-3.0-x86_64")).machines == {"pv"}


def test_a_domain_that_cannot_be_built_here_is_refused_with_the_way_out() -> None:
    only_pv = facts_from(facts("xen-3.0-x86_64"))
    assert fixed(CONFIG, only_pv).machine == "pv"
    with pytest.raises(DriverError, match="no machine 'pvh'"):
        fixed(evolve(CONFIG, machine="pvh"), only_pv)
    with pytest.raises(DriverError, match="needs a kernel"):
        fixed(evolve(CONFIG, kernel=None), only_pv)
    with pytest.raises(DriverError, match="no CPU model 'qemu64'"):
        fixed(evolve(CONFIG, cpu="qemu64"), only_pv)


def test_the_list_of_domains_is_read_with_its_states() -> None:
    found = parse_list(LIST)
    assert [seen.name for seen in found.values()] == ["Domain-0", "web", "a b--incoming", "(null)"]
    web, suspended, dying = found[7], found[8], found[9]
    assert (web.paused, web.suspended, web.ending, web.dying) == (True, False, None, False)
    assert (web.uuid, web.memory_mib, web.cpu_time_s) == (UUID_, 128, 3.1)
    assert (suspended.suspended, suspended.ending) == (True, None)
    assert (dying.dying, dying.ending) == (True, Cause.POWEROFF)


@pytest.mark.parametrize(
    ("letters", "cause"),
    [("---s--", Cause.POWEROFF), ("---sr-", Cause.REBOOT), ("---sc-", Cause.CRASH), ("---sw-", Cause.CRASH)],
)
def test_why_a_guest_ended(letters: str, cause: Cause) -> None:
    (seen,) = parse_list(LIST.splitlines()[2].replace("--p---", letters)).values()
    assert seen.ending is cause


def test_the_reason_is_found_among_what_xl_says() -> None:
    text = "Parsing config from /x\nlibxl: error: no such bridge\n\nxc: info: nothing\nlibxl: error: two\n"
    assert reason(text) == "libxl: error: no such bridge; libxl: error: two"
    assert reason("Parsing config from /x\n") == "it gave no reason"
