"""The table of settings, and what is made from it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from attrs import fields_dict

from relocd.config import Config
from relocd.config.document import markdown, sample
from relocd.config.keys import BY_NAME, KEYS, SECTIONS, Key
from relocd.config.load import load_config
from relocd.config.xend import WITHOUT_MEANING
from relocd.pages.limits import LANES_MAX
from relocd.sxp import parse_one

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "etc/relocd-config.sxp"


def each(key: Key) -> str:
    return key.name


def test_every_field_has_one_key() -> None:
    assert sorted(key.field for key in KEYS) == sorted(fields_dict(Config))


def test_no_name_means_two_things() -> None:
    assert len(BY_NAME) == sum(1 + len(key.aliases) for key in KEYS)
    assert not set(BY_NAME) & set(WITHOUT_MEANING)


@pytest.mark.parametrize("key", KEYS, ids=each)
def test_the_default_is_a_value_of_its_kind(key: Key) -> None:
    loaded = load_config(f"({key.name} {key.default_text})", source="f")
    assert loaded.config == Config()
    assert loaded.warnings == ()
    assert type(getattr(loaded.config, key.field)) is type(key.default)


@pytest.mark.parametrize("key", KEYS, ids=each)
def test_units_are_in_the_names(key: Key) -> None:
    units = {"s": "_s", "ms": "_ms", "MiB/s": "_bytes_s", "KiB": "_kib", "": ""}
    ends = ("_bytes", "_mib") if key.kind.unit == "MiB" else (units[key.kind.unit],)
    assert key.field.endswith(ends)


def test_lanes_are_what_a_carrier_can_take() -> None:
    text = f"(xen-relocation-lanes {LANES_MAX})"
    assert load_config(text, source="f").config.lanes == LANES_MAX
    assert load_config("(xen-relocation-lanes Auto)", source="f").config.lanes is None
    assert BY_NAME["xen-relocation-lanes"].kind.range == f"auto, or 1 to {LANES_MAX}"


# -- the sample file -----------------------------------------------------------------------------------


def test_the_sample_changes_nothing() -> None:
    loaded = load_config(SAMPLE.read_text(), source=str(SAMPLE))
    assert loaded.config == Config()
    assert loaded.warnings == ()


def test_the_sample_with_every_default_switched_on_is_the_default() -> None:
    text, count = re.subn(r"(?m)^#\(", "(", SAMPLE.read_text())
    loaded = load_config(text, source=str(SAMPLE))
    assert count == len(KEYS)
    assert loaded.config == Config()
    assert loaded.warnings == ()


@pytest.mark.parametrize("key", KEYS, ids=each)
def test_the_sample_documents_the_key(key: Key) -> None:
    (block,) = (block for block in SAMPLE.read_text().split("\n\n") if f"\n#({key.name} " in block)
    *comment, setting = block.splitlines()
    prose = " ".join(line.removeprefix("#").strip() for line in comment)
    assert parse_one(setting.removeprefix("#")) == (key.name, parse_one(key.default_text))
    assert prose.startswith(key.help)
    facts = prose.removeprefix(key.help)
    assert key.default_text in facts or "empty" in facts
    assert key.kind.range in facts
    assert key.kind.unit in facts


def test_the_sample_fits_a_terminal() -> None:
    wide = [line for line in SAMPLE.read_text().splitlines() if len(line) > 80 and not line.startswith("#(")]
    assert wide == []


def test_sample_and_manual_are_what_the_table_says() -> None:
    assert SAMPLE.read_text() == sample()
    assert (ROOT / "docs/config.md").read_text() == markdown()


@pytest.mark.parametrize("key", KEYS, ids=each)
def test_the_manual_documents_the_key(key: Key) -> None:
    _, _, section = markdown().partition(f"\n### {key.name}\n")
    section = section.partition("\n#")[0]
    assert f"`{key.default_text}`" in section
    assert key.kind.range in section
    assert all(f"`{alias}`" in section for alias in key.aliases)


def test_the_manual_has_every_section() -> None:
    assert all(f"\n## {section.title}\n" in markdown() for section in SECTIONS)


@pytest.mark.parametrize(("option", "page"), [("--sample", sample), ("--markdown", markdown)])
def test_pages_are_printed(option: str, page: object) -> None:
    command = [sys.executable, "-m", "relocd.config.document", option]
    printed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=60)
    assert callable(page)
    assert printed.stdout == page()


def test_a_wrong_option_is_explained() -> None:
    command = [sys.executable, "-m", "relocd.config.document", "--html"]
    printed = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True, timeout=60)
    assert printed.returncode == 2
    assert printed.stderr.startswith("usage: ")
