"""Each check fails alone, with numbers and a remedy, and passes otherwise."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest
from attrs import evolve

from relocd.config.model import L2Mode
from relocd.model import Accelerator, BootFile, Disk, DomainConfig, HypervisorFacts, Vif
from relocd.preflight.cpuid import missing
from relocd.preflight.facts import DiskFact, DiskKind, SegmentFacts, SourceFacts, TargetFacts
from relocd.preflight.result import Check, Verdict, failures
from relocd.preflight.rules import CLOCK_SKEW_MAX_S, RULES, check_target, needed_mib, within
from relocd.segment.proof import BridgeEnd, Crossing, EndState, Proof

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
END = BridgeEnd("xenbr0", EndState.READY, subnets=("192.0.2.0/24",))
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
            "/srv/web.img", exists=True, readable=True, writable=True, size_bytes=1 << 30, locked=True
        )
    },
    clock_s=1_800_000_000.0,
    cpu={"1.0.edx": 0x0783FBFD, "7.0.ebx": 0x20},
    boot_file_limit_bytes=256 << 20,
    incoming_limit=4,
    segments=SegmentFacts(
        L2Mode.REQUIRE,
        source_host="hosta",
        source_address="192.0.2.1",
        target_address="192.0.2.2",
        crossings={"xenbr0": Crossing(END, END, Proof.PROVEN)},
    ),
)


SOURCE = SourceFacts(
    hypervisor_version="7.2.22",
    clock_s=1_800_000_000.5,
    cpu={"1.0.edx": 0x0783FBFD},
    disks=FACTS.disks,
)


def _on(**hypervisor: Any) -> TargetFacts:
    """The target with another hypervisor."""
    return evolve(FACTS, hypervisor=evolve(FACTS.hypervisor, **hypervisor))


def failing(domain: DomainConfig, facts: TargetFacts) -> set[str]:
    return {check.name for check in failures(check_target(domain, facts))}


def only(verdict: Verdict, facts: TargetFacts, source: SourceFacts) -> Check:
    """The one check that does not pass."""
    (check,) = [check for check in check_target(DOMAIN, facts, source) if check.verdict is not Verdict.PASS]
    assert check.verdict is verdict
    assert check.remedy
    return check


def test_a_fitting_host_passes_every_check() -> None:
    checks = check_target(DOMAIN, FACTS, SOURCE)
    assert {check.name for check in checks} == set(RULES)
    assert all(check.verdict is Verdict.PASS for check in checks)


def crossed(crossing: Crossing, mode: L2Mode = L2Mode.REQUIRE) -> TargetFacts:
    """The target, after another probe."""
    assert FACTS.segments is not None
    return evolve(FACTS, segments=evolve(FACTS.segments, mode=mode, crossings={"xenbr0": crossing}))


HYPERVISOR = FACTS.hypervisor
DISK = FACTS.disks["/srv/web.img"]

#: For each check what is different on a target where it alone does not pass, the domain and its source being as they
#: are; and a number or a name that it tells.
ALONE: dict[str, tuple[TargetFacts, Verdict, str]] = {
    "memory": (evolve(FACTS, memory_available_mib=600), Verdict.FAIL, "608 MiB needed, 344 MiB free"),
    "architecture": (_on(architecture="aarch64"), Verdict.FAIL, "hostb is aarch64"),
    "virtualisation": (_on(accelerators=frozenset({Accelerator.KVM_VMX})), Verdict.FAIL, "offers kvm-vmx"),
    "version": (_on(version="6.2.0"), Verdict.WARN, "6.2.0 on hostb is older than 7.2.22"),
    "machine": (_on(machines=frozenset({"pc-q35-10.0"})), Verdict.FAIL, "pc-q35-7.2 is unknown"),
    "cpu": (_on(cpu_models=frozenset({"Nehalem"})), Verdict.FAIL, "qemu64 is not available"),
    "identity": (evolve(FACTS, domains={"web": UUID(int=8)}), Verdict.FAIL, "named 'web'"),
    "bridges": (evolve(FACTS, bridges=frozenset({"dmz"})), Verdict.FAIL, "no bridge xenbr0"),
    "segment": (crossed(Crossing(END, END, Proof.SILENT)), Verdict.FAIL, "no probe frame comes through"),
    "disks": (evolve(FACTS, disks={}), Verdict.FAIL, "/srv/web.img does not exist"),
    "boot-files": (
        evolve(FACTS, boot_file_limit_bytes=1 << 20),
        Verdict.FAIL,
        "14 MiB, hostb takes at most 1 MiB",
    ),
    "clock": (evolve(FACTS, clock_s=SOURCE.clock_s + 60), Verdict.WARN, "60.0 s ahead"),
    "room": (evolve(FACTS, incoming=4), Verdict.FAIL, "its limit is 4"),
}


@pytest.mark.parametrize("name", RULES)
def test_each_check_can_be_the_only_one_and_says_what_it_found_and_what_to_do(name: str) -> None:
    """A check that is new fails here until it has an entry of its own."""
    facts, verdict, told = ALONE[name]
    check = only(verdict, facts, SOURCE)
    assert check.name == name
    assert told in check.text


def test_there_is_no_entry_for_what_is_no_check() -> None:
    assert set(ALONE) == set(RULES)


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
        evolve(DISK, problem="disk /srv/web.img rests on /etc/shadow"),
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


def test_what_the_source_did_not_say_is_not_compared() -> None:
    checks = check_target(DOMAIN, FACTS)
    assert {check.name for check in checks} == set(RULES) - {"version", "clock"}
    assert all(check.verdict is Verdict.PASS for check in checks)


@pytest.mark.parametrize(
    ("there", "older"), [("7.2.21", True), ("7.10.0", False), ("10.0.2", False), ("6.9", True)]
)
def test_an_older_hypervisor_is_a_warning(there: str, older: bool) -> None:
    facts = evolve(FACTS, hypervisor=evolve(FACTS.hypervisor, version=there))
    if older:
        check = only(Verdict.WARN, facts, SOURCE)
        assert (check.name, there in check.text, "7.2.22" in check.text) == ("version", True, True)
    else:
        assert all(check.verdict is Verdict.PASS for check in check_target(DOMAIN, facts, SOURCE))


@pytest.mark.parametrize(("apart_s", "word"), [(-3.0, "behind"), (3.5, "ahead of")])
def test_clocks_apart_are_a_warning(apart_s: float, word: str) -> None:
    check = only(Verdict.WARN, evolve(FACTS, clock_s=SOURCE.clock_s + apart_s), SOURCE)
    assert (check.name, word in check.text, f"{abs(apart_s):.1f} s" in check.text) == ("clock", True, True)
    near = evolve(FACTS, clock_s=SOURCE.clock_s - CLOCK_SKEW_MAX_S)
    assert all(check.verdict is Verdict.PASS for check in check_target(DOMAIN, near, SOURCE))


def test_a_feature_that_the_guest_knows_and_the_target_lacks_is_a_failure() -> None:
    source = evolve(SOURCE, cpu={"1.0.edx": 0x0783FBFD, "7.0.ebx": 0x20 | 1 << 8, "40000001.0.eax": 1})
    check = only(Verdict.FAIL, FACTS, source)
    assert check.name == "cpu"
    assert check.text.endswith("bit 0 of CPUID 40000001.0.eax, bmi2")


def test_more_features_on_the_target_do_not_matter() -> None:
    assert all(
        check.verdict is Verdict.PASS
        for check in check_target(DOMAIN, evolve(FACTS, cpu={"1.0.edx": 0xFFFFFFFF}), SOURCE)
    )


def test_many_missing_features_are_not_all_told() -> None:
    check = only(Verdict.FAIL, FACTS, evolve(SOURCE, cpu={"1.0.ecx": 0xFFFFFFFF}))
    assert check.text.count(",") == 11
    assert check.text.endswith(" and more")


@pytest.mark.parametrize(
    ("word", "bit", "name"),
    [
        ("1.0.edx", 0, "fpu"),
        ("1.0.edx", 25, "sse"),
        ("1.0.edx", 28, "ht"),
        ("1.0.ecx", 0, "sse3"),
        ("1.0.ecx", 5, "vmx"),
        ("1.0.ecx", 20, "sse4_2"),
        ("1.0.ecx", 28, "avx"),
        ("1.0.ecx", 31, "hypervisor"),
        ("7.0.ebx", 5, "avx2"),
        ("7.0.ebx", 16, "avx512f"),
        ("7.0.ebx", 29, "sha_ni"),
        ("7.0.ecx", 2, "umip"),
        ("7.0.ecx", 16, "la57"),
        ("7.0.edx", 31, "ssbd"),
        ("d.1.eax", 3, "xsaves"),
        ("80000001.0.ecx", 2, "svm"),
        ("80000001.0.ecx", 22, "topoext"),
        ("80000001.0.edx", 29, "lm"),
        ("7.0.ecx", 15, "bit 15 of CPUID 7.0.ecx"),
        ("9.9.eax", 3, "bit 3 of CPUID 9.9.eax"),
    ],
)
def test_features_have_the_names_that_linux_shows(word: str, bit: int, name: str) -> None:
    assert missing({word: 1 << bit}, {}) == (name,)
    assert missing({word: 1 << bit}, {word: 1 << bit}) == ()


_CONTENT = ("", "a", "b", "")
_HERE = DiskFact(
    "/srv/web.img",
    exists=True,
    readable=True,
    writable=True,
    size_bytes=1 << 30,
    locked=True,
    samples=_CONTENT,
)


@pytest.mark.parametrize(
    ("there", "verdict", "words"),
    [
        ({}, Verdict.PASS, "the lock"),
        ({"locked": False}, Verdict.FAIL, "a file of its own"),
        ({"size_bytes": 1 << 29}, Verdict.FAIL, "bytes where the domain runs and"),
        ({"size_bytes": -1}, Verdict.PASS, "the lock"),
        ({"locked": False, "kind": DiskKind.SHARED}, Verdict.PASS, "same size and contents"),
        ({"locked": None}, Verdict.PASS, "same size and contents"),
        (
            {"locked": False, "kind": DiskKind.DEVICE, "samples": ("", "a", "x", "")},
            Verdict.PASS,
            "same size",
        ),
        ({"locked": None, "samples": ("x", "y", "z", "")}, Verdict.FAIL, "at 3 of 4 places"),
        ({"locked": None, "samples": ()}, Verdict.WARN, "cannot be told"),
    ],
)
def test_the_same_path_must_lead_to_the_same_disk(
    there: dict[str, Any], verdict: Verdict, words: str
) -> None:
    facts = evolve(FACTS, disks={_HERE.path: evolve(_HERE, **there)})
    source = evolve(SOURCE, disks={_HERE.path: _HERE})
    checks = [check for check in check_target(DOMAIN, facts, source) if check.name == "disks"]
    assert [check.verdict for check in checks] == [verdict]
    assert words in checks[0].text
    assert all(
        check.verdict is Verdict.PASS for check in check_target(DOMAIN, facts, source) if check not in checks
    )


@pytest.mark.parametrize("samples", [(), ("", "", "")])
def test_disks_that_hold_nothing_cannot_be_told_apart(samples: tuple[str, ...]) -> None:
    disk = evolve(_HERE, locked=None, samples=samples)
    check = only(
        Verdict.WARN, evolve(FACTS, disks={disk.path: disk}), evolve(SOURCE, disks={disk.path: disk})
    )
    assert check.name == "disks"
