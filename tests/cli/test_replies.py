"""Shapes of answers: what is missing, what is odd, and what every outcome has."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relocd.cli.replies import Check, Domain, Outcome, as_list
from relocd.errors import ProtocolError
from tests.cli.control_server import domain, outcome

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


def test_a_domain_is_read() -> None:
    read = Domain.of(domain("web", 2, start_time=1700000000))
    assert (read.name, read.id, read.state, read.memory_mib, read.cpu_time_s) == (
        "web",
        2,
        "running",
        256,
        3.0,
    )
    assert read.start_time == 1700000000.0


def test_a_domain_without_optional_fields_is_read() -> None:
    read = Domain.of({"name": "web", "id": 2, "state": "paused"})
    assert (read.vcpus, read.start_time, read.uuid) == (1, None, "")


@pytest.mark.parametrize("field", ["name", "id", "state"])
def test_a_domain_without_its_identity_is_refused(field: str) -> None:
    raw = domain("web", 2)
    del raw[field]
    with pytest.raises(ProtocolError, match=f"'{field}' is missing"):
        Domain.of(raw)


@pytest.mark.parametrize(
    ("field", "value"), [("id", "x"), ("id", float("inf")), ("memory_mib", None), ("vcpus", [])]
)
def test_a_domain_with_odd_numbers_is_refused(field: str, value: object) -> None:
    with pytest.raises(ProtocolError, match="relocd's answer is not a domain"):
        Domain.of(domain("web", 2) | {field: value})


@given(JSON)
def test_other_values_are_refused_in_words(value: object) -> None:
    for read in (Domain.of, Check.of):
        with pytest.raises(ProtocolError, match="relocd's answer is not a"):
            read(value)


def test_a_list_must_be_one() -> None:
    assert as_list([1], "a list") == [1]
    with pytest.raises(ProtocolError, match="it is dict"):
        as_list({}, "a list")


def _of(reply: dict[str, object], status: int) -> Outcome:
    return Outcome.of(reply, domain="web", host="hostb", live=False, status=status)


def test_an_outcome_has_every_field_whatever_was_said() -> None:
    expected = {*outcome()} - {"event"} | {"exit_code"}
    assert {*_of({}, 6).raw} == expected
    assert {*_of({"outcome": "completed"}, 0).raw} == expected


def test_an_outcome_keeps_what_relocd_said() -> None:
    raw = outcome("failed", error="The peer went away.", rounds=5)
    read = _of(raw, 6)
    assert read.raw == raw | {"exit_code": 6}
    assert not read.completed
    assert read.error == "The peer went away."


def test_only_completed_is_success() -> None:
    assert _of({"outcome": "completed"}, 0).completed
    read = _of({"outcome": "unknown"}, 0)
    assert read.status == 1
    assert read.error == "The outcome is 'unknown'."


def test_the_message_serves_as_error_where_there_is_none() -> None:
    assert _of({"message": "No such host."}, 6).error == "No such host."
