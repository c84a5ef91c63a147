"""A short run of every target of the fuzzer, and everything that it has ever found."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz import targets
from tests.fuzz.mutate import mutations
from tests.fuzz.targets import TARGETS

CRASHES = sorted(path for path in (Path(__file__).parent / "crashes").glob("*/*") if path.is_file())
COUNT = 300


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_stands_its_seeds_and_what_is_made_of_them(name: str) -> None:
    target = TARGETS[name]
    seeds = target.seeds()
    for data in (*seeds, b"", *mutations(seeds, target.words, COUNT, name)):
        target.run(data)


def test_what_was_found_once_is_mended() -> None:
    for path in CRASHES:
        TARGETS[path.parent.name].run(path.read_bytes())


def test_what_is_not_foreseen_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(data: bytes) -> None:
        raise KeyError(data)

    monkeypatch.setattr(targets, "decode", broken)
    with pytest.raises(KeyError):
        TARGETS["line"].run(b"(commit)")
