"""What the carrier cannot do any more when it says that it is ready."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.carrier.carriers import Carrier, pair, read_to_end, write_and_close
from tests.pages.streams import bulk

NOBODY = "65534"


def status(pid: int) -> dict[str, list[str]]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {key: value.split() for key, value in (line.split(":", 1) for line in lines)}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has privileges to drop")
def test_it_is_nobody_with_nothing() -> None:
    with Carrier() as carrier:
        facts = status(carrier.process.pid)
    assert facts["Uid"] == facts["Gid"] == [NOBODY] * 4
    assert facts["Groups"] == []
    assert [int(facts[name][0], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")] == [0] * 4


def test_it_cannot_gain_privileges_nor_leave_a_core() -> None:
    with Carrier() as carrier:
        pid = carrier.process.pid
        assert status(pid)["NoNewPrivs"] == ["1"]
        assert limit(pid, "Max core file size") == 0
        assert limit(pid, "Max open files") <= 128
        assert Path(f"/proc/{pid}/cwd").readlink() == Path("/")
        # Not dumpable, so not even processes of its own user may look into it.
        assert Path(f"/proc/{pid}/mem").stat().st_uid == 0
        assert status(pid)["Umask"] == ["0077"]


def test_it_holds_no_descriptor_but_its_own() -> None:
    with Path("/dev/null").open() as extra:
        os.set_inheritable(extra.fileno(), True)
        with Carrier() as carrier:
            names = list(Path(f"/proc/{carrier.process.pid}/fd").iterdir())
            assert len(names) == 4, names


def test_its_memory_does_not_grow_with_the_stream() -> None:
    stream = bulk(20_000)
    with pair() as both:
        both.connect(2, compression="none")
        both.expect_files()
        both.start()
        write_and_close(both.out, [stream])
        assert len(read_to_end(both.back)) == len(stream)
        both.expect_end()
        for carrier in (both.source, both.target):
            assert private_kib(carrier.process.pid) < 60 << 10


def limit(pid: int, name: str) -> int:
    """The hard limit of that name."""
    (line,) = [row for row in Path(f"/proc/{pid}/limits").read_text().splitlines() if row.startswith(name)]
    return int(line[len(name) :].split()[1])


def private_kib(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private"))
