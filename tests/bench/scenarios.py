"""What ``make bench`` runs: guests, links, contenders, and what is to be reached."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

from attrs import frozen

from tests.bench.encrypted import PLAIN
from tests.bench.figures import OWN, Load
from tests.bench.four import ALONE, AT_ONCE, IN_TURN
from tests.bench.goals import Goal, deviation, least, ratio
from tests.bench.peer import METHODS
from tests.bench.xen import XL

TCP, TCP_20MS = METHODS["tcp"].name, METHODS["tcp-20ms"].name


class Kind(Enum):
    """How a scenario is run."""

    PAIRS = "contenders in turn"
    FOUR = "four guests at once and one after another"
    ENCRYPTED = "relocd with TLS and without, in turn"
    XEN = "relocd and xl migrate in turn, on Xen hosts"


@frozen
class Scenario:
    """``loads`` are the guests, one after the other; ``link`` None is as fast as it goes; ``peers`` are METHODS.

    ``beside`` is who all ratios are to.
    """

    title: str
    loads: tuple[Load, ...]
    link: str | None
    runs: int
    peers: tuple[str, ...]
    goals: tuple[Goal, ...]
    kind: Kind = Kind.PAIRS
    beside: str = TCP


def _total(limit: float) -> Goal:
    return Goal("total time, to tcp", ratio("total_s", OWN, TCP), limit)


PRIVATE = Goal("private memory a side, worst, MiB", least("private_mib", of=max), 120)
BLACKOUT = (
    Goal("blackout, median, ms", least("blackout_ms"), 70),
    Goal("blackout, worst, ms", least("blackout_ms", of=max), 130),
)
BLACKOUT_20MS = (
    Goal("blackout, median, to tcp 20 ms", ratio("blackout_ms", OWN, TCP_20MS), 1.0),
    Goal("blackout, worst, to tcp 20 ms", ratio("blackout_ms", OWN, TCP_20MS, max), 1.0),
)
TLS_TIMES = 1 / 0.7
"""TLS may cost so much that 0.7 of the throughput is left."""
_ENCRYPTED = (
    None,
    5,
    (),
    (Goal("total time, to plain", ratio("total_s", OWN, PLAIN), TLS_TIMES), PRIVATE),
    Kind.ENCRYPTED,
)
SIZES_MIB = (1024, 2048, 4096, 8192)

SCENARIOS: Mapping[str, Scenario] = {
    "gigabit": Scenario(
        "1 Gbit/s, 10 MB/s dirtied",
        (Load(),),
        "1gbit",
        9,
        ("tcp", "tcp-20ms"),
        (
            _total(0.40),
            Goal("bytes, to tcp", ratio("wire_bytes", OWN, TCP), 0.30),
            Goal("processor time, to tcp", ratio("cpu_s", OWN, TCP), 0.7),
            *BLACKOUT,
            *BLACKOUT_20MS,
            PRIVATE,
        ),
    ),
    "unshaped": Scenario(
        "no limit, 10 MB/s dirtied",
        (Load(),),
        None,
        9,
        ("tcp", "tcp-20ms"),
        (_total(1.0), *BLACKOUT, *BLACKOUT_20MS, PRIVATE),
    ),
    "busy": Scenario(
        "1 Gbit/s, 200 MB/s dirtied",
        (Load(dirty_mb_s=200),),
        "1gbit",
        2,
        ("tcp",),
        (Goal("total time, s", least("total_s"), 10), PRIVATE),
    ),
    "dense": Scenario(
        "1 Gbit/s, incompressible",
        (Load(content="random"),),
        "1gbit",
        3,
        ("tcp",),
        (_total(1.03), BLACKOUT[0], PRIVATE),
    ),
    "peers": Scenario(
        "1 Gbit/s, all of QEMU's methods", (Load(),), "1gbit", 2, tuple(METHODS), (_total(0.40), PRIVATE)
    ),
    "sizes": Scenario(
        "1 Gbit/s, guests of four sizes, half filled",
        tuple(Load(memory_mib=size, fill_mib=size // 2) for size in SIZES_MIB),
        "1gbit",
        2,
        (),
        (Goal("time off a straight line", deviation, 0.10), PRIVATE),
    ),
    "four": Scenario(
        "1 Gbit/s, four guests at once and one after another",
        (Load(memory_mib=512, fill_mib=256, working_set_mib=64),),
        "1gbit",
        3,
        (),
        (
            Goal("total time, to one after another", ratio("total_s", AT_ONCE, IN_TURN), 1.0),
            Goal("blackout, median, to one alone", ratio("blackout_ms", OWN, ALONE), 1.5),
            Goal("blackout, worst, to one alone", ratio("blackout_ms", OWN, ALONE, max), 1.5),
        ),
        Kind.FOUR,
    ),
    "tls": Scenario("no limit, 10 MB/s dirtied, with TLS and without", (Load(),), *_ENCRYPTED),
    "tls-dense": Scenario(
        "no limit, incompressible, with TLS and without", (Load(content="random"),), *_ENCRYPTED
    ),
    "xen": Scenario(
        "two emulated Xen hosts, a PVH guest",
        (Load(memory_mib=112, fill_mib=32, dirty_mb_s=0.2, working_set_mib=16),),
        None,
        2,
        (),
        (
            Goal("total time, to xl", ratio("total_s", OWN, XL), 1.0),
            Goal("bytes, to xl", ratio("wire_bytes", OWN, XL), 1.0),
            Goal("blackout, median, to xl", ratio("blackout_ms", OWN, XL), 1.0),
        ),
        Kind.XEN,
        XL,
    ),
}

USUAL = tuple(name for name, scenario in SCENARIOS.items() if scenario.kind is not Kind.XEN)
"""What is run unless somebody asks for something else: Xen hosts need packages and an image of their own."""
