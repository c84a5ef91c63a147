"""The wall: the pure core knows nothing of reactors, sockets, clocks or files, and dependencies go one way."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent / "relocd"

#: Modules and packages that are pure logic.
PURE = (
    "errors", "model", "nearest", "patterns", "printable", "sxp", "allow", "config", "domain", "pages", "preflight",
    "convergence", "handover", "wire", "prediction", "firewall", "segment",
)  # fmt: skip

#: What the outside world is made of.
FORBIDDEN = frozenset(
    {
        "twisted", "zope", "socket", "select", "selectors", "asyncio", "threading", "multiprocessing", "concurrent",
        "subprocess", "os", "pathlib", "shutil", "tempfile", "io", "time", "datetime", "random", "secrets", "signal",
        "fcntl", "mmap", "ctypes", "sqlite3", "logging", "psutil", "pyroute2", "iptc", "qemu",
    }
)  # fmt: skip

#: Each layer may import those before it, never those after it.
LAYERS = (
    ("errors", "model", "nearest", "patterns", "printable", "sxp"),
    ("allow", "config", "domain", "pages", "prediction", "segment"),
    ("preflight", "convergence", "firewall"),
    ("handover", "wire"),
    ("net", "host", "journal", "tls"),
    ("drivers", "carrier"),
    ("daemon",),
    ("cli",),
)

MODULES = sorted(ROOT.rglob("*.py"))


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).with_suffix("").parts[0]


def imports(path: Path) -> set[str]:
    """All modules that a file imports, wherever in it, as dotted names."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide where a name comes from"
            found.add(node.module or "")
    return found


def rank(top: str) -> int | None:
    return next((index for index, layer in enumerate(LAYERS) if top in layer), None)


@pytest.mark.parametrize(
    "path", [p for p in MODULES if name_of(p) in PURE], ids=lambda p: str(p.relative_to(ROOT))
)
def test_the_core_is_pure(path: Path) -> None:
    outside = {name for name in imports(path) if name.split(".")[0] in FORBIDDEN}
    assert not outside, f"{path.relative_to(ROOT)} is pure logic and imports {', '.join(sorted(outside))}"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_dependencies_go_one_way(path: Path) -> None:
    own = rank(name_of(path))
    if name_of(path) in ("__init__", "__main__"):
        return
    assert own is not None, f"{name_of(path)} has no layer: give it one in LAYERS"
    for name in imports(path):
        parts = name.split(".")
        if parts[0] == "relocd" and len(parts) > 1:
            other = rank(parts[1])
            assert other is not None, name
            assert other <= own, f"{path.relative_to(ROOT)} imports {name}, which is a layer above it"


def test_the_wall_sees_what_it_forbids() -> None:
    assert "socket" in imports(ROOT / "daemon" / "carriers.py")
    assert {name_of(path) for path in MODULES} >= set(PURE)
