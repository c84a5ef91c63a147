"""The page about the hand-over says what the tables say."""

from __future__ import annotations

from pathlib import Path

from relocd.handover.document import document
from relocd.handover.record import Mark
from relocd.handover.source import SOURCE_RECOVERY, SOURCE_TABLE
from relocd.handover.target import TARGET_RECOVERY, TARGET_TABLE

PAGE = Path(__file__).parents[2] / "docs" / "hand-over.md"


def test_the_page_is_what_the_tables_make_it() -> None:
    assert PAGE.read_text("utf-8") == document(), (
        "run: python -m relocd.handover.document > docs/hand-over.md"
    )


def test_every_transition_and_every_mark_is_on_it() -> None:
    text = document()
    for table in (SOURCE_TABLE, TARGET_TABLE):
        for (state, event), transition in table.items():
            assert f"| `{state}` | `{event}` | `{transition.state}` |" in text
    for mark in Mark:
        assert f"| `{mark}` |" in text


def test_every_mark_that_is_not_final_is_gone_on_from() -> None:
    assert {mark for mark in Mark if not mark.final} == set(SOURCE_RECOVERY) | set(TARGET_RECOVERY)
