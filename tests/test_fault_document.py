"""The page of the fault table is written by a full run of it; here it is held against what the cases promise."""

from __future__ import annotations

from tests.e2e.faults import CASES, FAULTS, GONE, HOME, MOVED, STEPS, document, expected
from tests.e2e.test_fault_table import DOCUMENT

ENDINGS = {case: expected(*case) for case in CASES}


def test_the_page_is_what_the_cases_promise() -> None:
    assert DOCUMENT.read_text() == document(ENDINGS)


def test_every_step_meets_every_fault() -> None:
    missing = {(step, fault) for step in STEPS for fault in FAULTS} - set(CASES)
    assert {fault for _, fault in missing} == {"target carrier", "target QEMU"}
    assert len(missing) == 10


def test_a_domain_is_gone_only_where_its_only_running_hypervisor_was_killed() -> None:
    gone = {case for case, ending in ENDINGS.items() if ending.place == GONE}
    assert all(fault.endswith("QEMU") for _, fault in gone)
    assert {step for step, fault in gone if fault == "target QEMU"} == {"resumed"}
    assert {ending.place for ending in ENDINGS.values()} == {HOME, MOVED, GONE}


def test_both_journals_agree() -> None:
    for case, ending in ENDINGS.items():
        assert (ending.source_mark == "done") == (ending.target_mark == "arrived"), case
        assert not {ending.source_mark, ending.target_mark} & {"begun", "undoing", "committed", "owned"}, case
        assert ending.place != MOVED or ending.source_mark == "done", case


def test_only_a_killed_daemon_leaves_its_client_without_an_answer() -> None:
    assert {fault for (_, fault), ending in ENDINGS.items() if ending.exit_code == 12} == {"source daemon"}
    assert all(ending.exit_code == 0 for ending in ENDINGS.values() if not ending.said)
