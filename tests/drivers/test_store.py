"""Records of domains: written whole, read back the same, never overlooked."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relocd.drivers.qemu.process import Identity
from relocd.drivers.qemu.store import Record, Role, Store
from relocd.errors import DriverError
from relocd.model import DomainConfig
from tests.strategies import domain_configs

CONFIG = DomainConfig("web", uuid4(), 16)

records = st.builds(
    Record,
    config=domain_configs(),
    id=st.integers(1, 1 << 31),
    role=st.sampled_from(Role),
    process=st.none() | st.builds(Identity, pid=st.integers(1, 1 << 22), start_ticks=st.integers(0, 1 << 50)),
    was_paused=st.booleans(),
)


@given(record=records)
def test_what_is_saved_is_loaded(record: Record) -> None:
    with TemporaryDirectory() as state:
        Store(Path(state)).save(record)
        assert list(Store(Path(state)).load()) == [record]


def test_the_last_save_counts_and_removal_is_for_good(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.save(Record(CONFIG, 1, Role.OWN))
    store.save(Record(CONFIG, 1, Role.OUTGOING, was_paused=True))
    (loaded,) = store.load()
    assert (loaded.role, loaded.was_paused) == (Role.OUTGOING, True)
    for _ in range(2):
        store.remove(CONFIG.uuid)
        assert list(store.load()) == []


def test_a_save_that_a_crash_cut_short_changes_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.save(Record(CONFIG, 1, Role.OWN))
    (tmp_path / "domains" / str(CONFIG.uuid) / ".record.sxp.new").write_text("(domain-rec")
    assert [record.role for record in store.load()] == [Role.OWN]


def test_ids_count_up_over_restarts(tmp_path: Path) -> None:
    assert [Store(tmp_path).next_id() for _ in range(3)] == [1, 2, 3]
    (tmp_path / "domains" / "last-id").write_text("many")
    with pytest.raises(DriverError, match="last-id does not hold a number"):
        Store(tmp_path).next_id()


@pytest.mark.parametrize(
    "damage",
    [
        "",
        "(",
        "word",
        "(domain-record)",
        "(domain-record (version 2))",
        "(domain-record (version 1) (id x) (role own) (was-paused no) (config (domain)))",
        "(other (version 1))",
    ],
)
def test_a_record_that_cannot_be_read_is_not_passed_over(tmp_path: Path, damage: str) -> None:
    store = Store(tmp_path)
    store.save(Record(CONFIG, 1, Role.OWN))
    path = tmp_path / "domains" / str(CONFIG.uuid) / "record.sxp"
    path.write_text(damage)
    with pytest.raises(DriverError, match=r"record\.sxp"):
        list(store.load())


def test_an_unknown_role_is_not_passed_over(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.save(Record(CONFIG, 1, Role.OWN))
    path = tmp_path / "domains" / str(CONFIG.uuid) / "record.sxp"
    path.write_text(path.read_text().replace("(role own)", "(role lent)"))
    with pytest.raises(DriverError, match="lent"):
        list(store.load())
