"""The page of the fault table is written by a full run of it; here it is held against what the cases promise."""

from __future__ import annotations

from tests.e2e.test_fault_table import CASES, DOCUMENT, document, expected


def test_the_page_is_what_the_cases_promise() -> None:
    assert DOCUMENT.read_text() == document({case: expected(*case) for case in CASES})
