"""The threat model: every promise has tests, and every test that it names exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docs/threat-model.md").read_text()
ROW = re.compile(r"^\| (P\d+) \|", re.MULTILINE)
SECTION = re.compile(r"^### (P\d+)\n(.*?)(?=^#)", re.MULTILINE | re.DOTALL)
NODE = re.compile(r"^- `(tests/[\w/]+\.py)::(\w+)`$", re.MULTILINE)


def functions(path: str) -> set[str]:
    tree = ast.parse((ROOT / path).read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_each_promise_has_tests_and_a_number() -> None:
    promises = ROW.findall(TEXT)
    assert promises == [f"P{number}" for number in range(1, len(promises) + 1)]
    sections = dict(SECTION.findall(TEXT))
    assert list(sections) == promises
    assert [name for name, text in sections.items() if not NODE.search(text)] == []


def test_every_test_that_is_named_exists() -> None:
    named = NODE.findall(TEXT)
    assert len(named) == TEXT.count("\n- `tests/")
    assert [f"{path}::{name}" for path, name in named if name not in functions(path)] == []


def test_the_policy_points_at_it() -> None:
    assert "docs/threat-model.md" in (ROOT / "SECURITY.md").read_text()
