"""The manuals against the programs: nothing is missing, nothing is invented, no link is dead."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from relocd.cli import relocctl, xm_help
from relocd.daemon.main import parser

ROOT = Path(__file__).parents[2]
RELOCCTL = (ROOT / "docs/man/relocctl.1.md").read_text()
XM = (ROOT / "docs/man/xm.1.md").read_text()
RELOCD = (ROOT / "docs/man/relocd.8.md").read_text()
PAGES = sorted(
    [
        *ROOT.glob("docs/man/*.md"),
        ROOT / "docs/operations.md",
        *map(ROOT.joinpath, ("SECURITY.md", "CONTRIBUTING.md")),
    ]
)


def _options(command: click.Command) -> Iterator[str]:
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            yield next(name for name in parameter.opts if name.startswith("--"))


def _entry(page: str, name: str) -> str:
    """The entry of a command: its heading, which may name several, and the text below."""
    entries = re.findall(r"(?ms)^\*\*.*?(?=^\*\*|^## )", page)
    found: list[str] = [entry for entry in entries if f"**{name}**" in entry.splitlines()[0]]
    assert len(found) == 1
    return found[0]


@pytest.mark.parametrize("name", sorted(relocctl.cli.commands))
def test_relocctl_1_has_every_command_with_its_options(name: str) -> None:
    entry = _entry(RELOCCTL, name)
    for option in _options(relocctl.cli.commands[name]):
        assert option == "--json" or f"**{option}**" in entry


def test_relocctl_1_has_the_general_options() -> None:
    for option in _options(relocctl.cli):
        assert f"**{option}**" in RELOCCTL


@pytest.mark.parametrize("name", sorted(xm_help.SUBCOMMANDS))
def test_xm_1_has_every_subcommand_with_its_options(name: str) -> None:
    entry = _entry(XM, name)
    for short, long, _ in xm_help.SUBCOMMANDS[name].options:
        assert (short or long).split("=")[0] in entry


def test_relocd_8_has_every_option() -> None:
    options = {
        word for line in parser().format_help().splitlines() for word in re.findall(r"--[a-z-]+", line)
    }
    assert options
    for option in options:
        assert f"**{option}**" in RELOCD


@pytest.mark.parametrize("page", [RELOCCTL, XM, RELOCD])
def test_a_manual_has_the_sections_of_one(page: str) -> None:
    sections = re.findall(r"(?m)^## (.+)$", page)
    assert sections[:3] == ["NAME", "SYNOPSIS", "DESCRIPTION"]
    assert "EXIT STATUS" in sections
    assert sections[-1] == "SEE ALSO"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_that_a_page_shows_exists(page: Path) -> None:
    for verb in re.findall(r"(?:^    |`|')relocctl ([a-z][a-z-]*)", page.read_text(), re.MULTILINE):
        assert verb in relocctl.cli.commands


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
        assert "://" in target or (page.parent / target).exists(), target
