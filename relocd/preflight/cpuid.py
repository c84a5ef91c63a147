"""Names of processor features by register and bit, as Linux shows them in /proc/cpuinfo.

From the Intel Software Developer's Manual (volume 2, CPUID) and the AMD64 Architecture Programmer's Manual (volume 3,
appendix E). A bit without a name here is called by its place.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from relocd.model import CpuWords


def _listed(names: str) -> dict[int, str]:
    """Names of the bits from 0 on; ``-`` for one that has none."""
    return {bit: name for bit, name in enumerate(names.split()) if name != "-"}


_NAMES: Final[Mapping[str, Mapping[int, str]]] = {
    "1.0.edx": _listed(
        "fpu vme de pse tsc msr pae mce cx8 apic - sep mtrr pge mca cmov pat pse36 pn clflush - ds "
        "acpi mmx fxsr sse sse2 ss ht tm ia64 pbe"
    ),
    "1.0.ecx": _listed(
        "sse3 pclmulqdq dtes64 monitor ds_cpl vmx smx est tm2 ssse3 cid sdbg fma cx16 xtpr pdcm - "
        "pcid dca sse4_1 sse4_2 x2apic movbe popcnt tsc_deadline_timer aes xsave osxsave avx f16c "
        "rdrand hypervisor"
    ),
    "7.0.ebx": _listed(
        "fsgsbase tsc_adjust sgx bmi1 hle avx2 fdp_excptn_only smep bmi2 erms invpcid rtm cqm "
        "zero_fcs_fds mpx rdt_a avx512f avx512dq rdseed adx smap avx512ifma pcommit clflushopt clwb "
        "intel_pt avx512pf avx512er avx512cd sha_ni avx512bw avx512vl"
    ),
    "7.0.ecx": _listed(
        "prefetchwt1 avx512vbmi umip pku ospke waitpkg avx512_vbmi2 shstk gfni vaes vpclmulqdq "
        "avx512_vnni avx512_bitalg tme avx512_vpopcntdq - la57"
    )
    | {
        22: "rdpid",
        24: "bus_lock_detect",
        25: "cldemote",
        27: "movdiri",
        28: "movdir64b",
        30: "sgx_lc",
        31: "pks",
    },
    "7.0.edx": {
        2: "avx512_4vnniw",
        3: "avx512_4fmaps",
        4: "fsrm",
        8: "avx512_vp2intersect",
        10: "md_clear",
        14: "serialize",
        16: "tsxldtrk",
        18: "pconfig",
        20: "ibt",
        22: "amx_bf16",
        23: "avx512_fp16",
        24: "amx_tile",
        25: "amx_int8",
        26: "spec_ctrl",
        27: "intel_stibp",
        28: "flush_l1d",
        29: "arch_capabilities",
        30: "core_capabilities",
        31: "ssbd",
    },
    "d.1.eax": _listed("xsaveopt xsavec xgetbv1 xsaves xfd"),
    "80000001.0.ecx": _listed(
        "lahf_lm cmp_legacy svm extapic cr8_legacy abm sse4a misalignsse 3dnowprefetch osvw ibs xop "
        "skinit wdt - lwp fma4 tce - nodeid_msr - tbm topoext perfctr_core perfctr_nb - - ptsc "
        "perfctr_llc mwaitx"
    ),
    "80000001.0.edx": {11: "syscall", 19: "mp", 20: "nx", 22: "mmxext", 25: "fxsr_opt", 26: "pdpe1gb"}
    | {27: "rdtscp", 29: "lm", 30: "3dnowext", 31: "3dnow"},
}

_BITS: Final = 32


def missing(wanted: CpuWords, offered: CpuWords) -> tuple[str, ...]:
    """Features that the first has and the second has not, by name."""
    return tuple(
        name for word, bits in sorted(wanted.items()) for name in _names(word, bits & ~offered.get(word, 0))
    )


def _names(word: str, bits: int) -> Iterator[str]:
    for bit in range(_BITS):
        if bits >> bit & 1:
            yield _NAMES.get(word, {}).get(bit, f"bit {bit} of CPUID {word}")
