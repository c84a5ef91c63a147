"""The table of exit codes against the tree of errors, and against every text that shows it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from relocd import errors
from relocd.cli import exitcodes, relocctl, xm
from relocd.cli.exitcodes import EXIT_CODES, markdown_table

ROOT = Path(__file__).parents[2]


def _tree(kind: type[errors.RelocdError]) -> Iterator[type[errors.RelocdError]]:
    yield kind
    for below in kind.__subclasses__():
        yield from _tree(below)


@pytest.mark.parametrize("command", [relocctl, xm])
def test_every_error_of_a_command_has_a_line_in_the_table(command: ModuleType) -> None:
    assert command.__name__ in sys.modules  # imported, so that its errors are in the tree
    table = {entry.status: entry.code for entry in EXIT_CODES}
    for kind in _tree(errors.RelocdError):
        assert kind.exit_code in table
    for kind in vars(errors).values():
        if isinstance(kind, type) and issubclass(kind, errors.RelocdError) and kind is not errors.BadState:
            assert table[kind.exit_code] == kind.code


def test_the_numbers_are_those_that_scripts_rely_on() -> None:
    assert [(entry.status, entry.code) for entry in EXIT_CODES] == [
        (0, "ok"),
        (1, "internal"),
        (2, "usage"),
        (3, "unknown-domain"),
        (4, "config"),
        (5, "protocol"),
        (6, "unreachable"),
        (7, "refused"),
        (8, "stream"),
        (9, "hypervisor"),
        (10, "journal"),
        (11, "cancelled"),
        (12, "unknown"),
        (13, "untrusted"),
        (130, "interrupted"),
    ]
    assert errors.UnknownDomain.exit_code == exitcodes.UNKNOWN_DOMAIN
    assert errors.Refused.exit_code == exitcodes.REFUSED
    assert errors.OutcomeUnknown.exit_code == exitcodes.OUTCOME_UNKNOWN


@pytest.mark.parametrize("page", ["docs/man/relocctl.1.md", "docs/operations.md"])
def test_the_manuals_print_this_table(page: str) -> None:
    assert markdown_table() in (ROOT / page).read_text()
