"""Each check fails alone, with numbers and a remedy, and passes otherwise."""

from __future__ import annotations

from uuid import UUID

import pytest
from attrs import evolve

from relocd.model import Accelerator, BootFile, Disk, DomainConfig, HypervisorFacts, Vif
from relocd.preflight.facts import DiskFact, TargetFacts
from relocd.preflight.result import Verdict, failures
from relocd.preflight.rules import RULES, check_target, needed_mib, within

DOMAIN = DomainConfig(
    name="web",
    uuid=UUID(int=7),
    memory_mib=512,
    kernel=BootFile("/boot/vmlinuz", "ab" * 32, 14 << 20),
    disks=(Disk("/srv/web.img", "xvda"),),
    vifs=(Vif("00:16:3e:00:00:01", "xenbr0"),),
    machine="pc-q35-7.2",
    cpu="qemu64",
    accelerator=Accelerator.TCG,
)
FACTS = TargetFacts(
    host="hostb",
    hypervisor=HypervisorFacts(
        driver="qemu",
        version="7.2.22",
        architecture="x86_64",
        accelerators=frozenset({Accelerator.TCG}),
        machines=frozenset({"pc-q35-7.2"}),
        cpu_models=frozenset({"qemu64"}),
    ),
    memory_available_mib=4096,
    memory_host_reserve_mib=256,
    memory_reserved_mib=0,
    bridges=frozenset({"xenbr0"}),
    disk_roots=("/srv",),
    disks={
        "/srv/web.img": DiskFact(
            "/srv/web.img", exists=True, readable=True, writable=True, size_bytes=1 << 30
        )
    },
    boot_file_limit_bytes=256 << 20,
    incoming_limit=4,
)


def failing(domain: DomainConfig, facts: TargetFacts) -> set[str]:
    return {check.name for check in failures(check_target(domain, facts))}


def test_a_fitting_host_passes_every_check() -> None:
    checks = check_target(DOMAIN, FACTS)
    assert {check.name for check in checks} == set(RULES)
    assert all(check.verdict is Verdict.PASS for check in checks)


HYPERVISOR = FACTS.hypervisor
DISK = FACTS.disks["/srv/web.img"]
ALONE = {
    "memory": (DOMAIN, evolve(FACTS, memory_available_mib=600)),
    "architecture": (evolve(DOMAIN, architecture="aarch64"), FACTS),
    "virtualisation": (evolve(DOMAIN, accelerator=Accelerator.KVM_VMX), FACTS),
    "machine": (evolve(DOMAIN, machine="pc-q35-10.0"), FACTS),
    "cpu": (evolve(DOMAIN, cpu="Skylake-Client"), FACTS),
    "identity": (DOMAIN, evolve(FACTS, domains={"web": UUID(int=8)})),
    "bridges": (evolve(DOMAIN, vifs=(Vif("00:16:3e:00:00:01", "dmz"),)), FACTS),
    "disks": (DOMAIN, evolve(FACTS, disks={})),
    "boot-files": (DOMAIN, evolve(FACTS, boot_file_limit_bytes=1 << 20)),
    "room": (DOMAIN, evolve(FACTS, incoming=4)),
}


@pytest.mark.parametrize("name", RULES)
def test_each_check_fails_alone_and_says_what_to_do(name: str) -> None:
    domain, facts = ALONE[name]
    assert failing(domain, facts) == {name}
    (check,) = failures(check_target(domain, facts))
    assert check.remedy
    assert len(check.text) > 20


def test_all_reasons_come_at_once() -> None:
    poor = evolve(FACTS, memory_available_mib=100, bridges=frozenset(), domains={"web": UUID(int=9)})
    assert failing(DOMAIN, poor) == {"memory", "bridges", "identity"}


@pytest.mark.parametrize(
    ("spare", "fits"), [(-1, False), (0, True)], ids=["one MiB too little", "exactly enough"]
)
def test_memory_counts_the_hosts_share_and_other_promises(spare: int, fits: bool) -> None:
    facts = evolve(
        FACTS, memory_available_mib=256 + 1000 + needed_mib(DOMAIN) + spare, memory_reserved_mib=1000
    )
    assert (failing(DOMAIN, facts) == set()) is fits


def test_the_same_uuid_under_another_name_is_a_clash() -> None:
    assert failing(DOMAIN, evolve(FACTS, domains={"other": DOMAIN.uuid})) == {"identity"}


@pytest.mark.parametrize(
    "fact",
    [
        DiskFact("/srv/web.img", exists=False),
        evolve(DISK, readable=False),
        evolve(DISK, writable=False),
    ],
)
def test_a_disk_must_be_there_and_usable(fact: DiskFact) -> None:
    assert failing(DOMAIN, evolve(FACTS, disks={fact.path: fact})) == {"disks"}


def test_a_read_only_disk_need_not_be_writable() -> None:
    domain = evolve(DOMAIN, disks=(evolve(DOMAIN.disks[0], readonly=True),))
    assert failing(domain, evolve(FACTS, disks={DISK.path: evolve(DISK, writable=False)})) == set()


@pytest.mark.parametrize(
    ("path", "inside"),
    [
        ("/srv/a", True),
        ("/srv/a/b.img", True),
        ("/srv", False),
        ("/srv/../etc/shadow", False),
        ("/srvx/a", False),
        ("srv/a", False),
        ("/srv/a/../../etc/x", False),
        ("/srv/x/../a", True),
    ],
)
def test_within(path: str, inside: bool) -> None:
    assert within(path, ("/srv/",)) is inside
