"""The operands of ``create``: one domain file, and settings that win over what it says."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from pathlib import Path

from attrs import frozen

from relocd.errors import ConfigError, UsageError

MAX_SIZE_BYTES = 512 * 1024
"""A domain file is a page or two; the request that carries it must stay below 1 MiB, escapes included."""

STDIN = "-"
_SETTING = re.compile(r"([A-Za-z_][A-Za-z0-9_-]*)=(.*)", re.DOTALL)


@frozen
class DomainFile:
    """What an administrator wrote. ``source`` is its absolute path, for messages."""

    text: str
    source: str


def split_operands(operands: Iterable[str]) -> tuple[list[str], dict[str, str]]:
    """Tell bare words (files) from ``key=value`` settings, as xm did. ``./a=b`` is a file."""
    files: list[str] = []
    settings: dict[str, str] = {}
    for operand in operands:
        if setting := _SETTING.fullmatch(operand):
            settings[setting[1]] = setting[2]
        else:
            files.append(operand)
    return files, settings


def only_file(files: list[str]) -> str:
    """The one file that was named. Raises UsageError for none or several."""
    if not files:
        raise UsageError("No domain file was named.", hint="Name the file, or '-' to read it from stdin.")
    if len(files) > 1:
        raise UsageError(
            f"More than one domain file was named: {', '.join(files)}.",
            hint="Settings are written key=value.",
        )
    return files[0]


def search(name: str, directories: Iterable[str]) -> str:
    """The first file ``name`` below one of ``directories``; an absolute name stands for itself."""
    for directory in directories:
        candidate = f"{directory}/{name}" if not name.startswith("/") else name
        if Path(candidate).is_file():
            return candidate
    raise UsageError(f"Unable to open config file: {name}", hint=f"Looked in {', '.join(directories)}.")


def read(path: str) -> DomainFile:
    """Read a domain file; ``-`` is stdin. Raises UsageError if that fails, ConfigError if it is no text."""
    source = "<stdin>" if path == STDIN else str(Path(path).absolute())
    try:
        content = _content(path)
    except OSError as error:
        raise UsageError(f"Cannot read {path}: {error.strerror}.", hint="Name a domain file.") from None
    if len(content) > MAX_SIZE_BYTES:
        raise ConfigError(
            f"longer than {MAX_SIZE_BYTES} bytes", source=source, hint="Is this really a domain file?"
        )
    try:
        return DomainFile(content.decode(), source)
    except UnicodeDecodeError:
        raise ConfigError("not UTF-8 text", source=source, hint="Is this really a domain file?") from None


def _content(path: str) -> bytes:
    if path == STDIN:
        return sys.stdin.buffer.read(MAX_SIZE_BYTES + 1)
    with Path(path).open("rb") as file:
        return file.read(MAX_SIZE_BYTES + 1)
