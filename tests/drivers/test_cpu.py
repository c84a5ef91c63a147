"""What a guest finds in CPUID: of real QEMU processes, running and only asked."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from attrs import evolve

from relocd.drivers.qemu.cpu import read_words
from relocd.preflight.cpuid import missing
from tests.contracts.rigs import QemuRig
from tests.reactor import call, run


def test_registers_have_names_that_do_not_depend_on_qemu() -> None:
    answer = [
        {"cpuid-input-eax": 1, "cpuid-register": "EDX", "features": 126614525},
        {"cpuid-input-eax": 7, "cpuid-input-ecx": 0, "cpuid-register": "EBX", "features": 0},
        {"cpuid-input-eax": 0x80000001, "cpuid-register": "ECX", "features": 5},
    ]
    assert read_words(answer) == {"1.0.edx": 126614525, "7.0.ebx": 0, "80000001.0.ecx": 5}


@pytest.fixture
def rig() -> Iterator[QemuRig]:
    rig = QemuRig()
    yield rig
    rig.close()


@pytest.mark.qemu
@pytest.mark.netns
def test_a_domain_would_find_on_the_same_host_what_it_has(rig: QemuRig) -> None:
    config = run(rig.a.driver.create(evolve(rig.config(), cpu="Nehalem"))).config
    has = run(rig.a.driver.cpu_words(config))
    assert missing({"1.0.ecx": 1 << 20, "80000001.0.edx": 1 << 29}, has) == ()  # sse4_2, lm
    offered = run(rig.b.driver.cpu_words(config))
    assert missing(has, offered) == missing(offered, has) == ()
    less = run(rig.b.driver.cpu_words(evolve(config, cpu="qemu64-v1")))
    assert "sse4_2" in missing(has, less)
    assert rig.leftovers(rig.b) == []


@pytest.mark.qemu
@pytest.mark.netns
def test_the_disks_of_a_domain_are_seen_to_be_in_use(rig: QemuRig) -> None:
    config = run(rig.a.driver.create(rig.config())).config
    (disk,) = config.disks
    assert call(rig.b.driver.disk_in_use, disk.path) is True
    run(rig.a.driver.pause(config.uuid))
    assert call(rig.b.driver.disk_in_use, disk.path) is True
    run(rig.a.driver.destroy(config.uuid))
    assert call(rig.b.driver.disk_in_use, disk.path) is False
    assert call(rig.b.driver.disk_in_use, disk.path + ".gone") is None
