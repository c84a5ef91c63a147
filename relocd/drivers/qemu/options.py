"""Option texts of QEMU's command line ("keyval" syntax), so that no value can become an option. Pure."""

from __future__ import annotations

import re

from relocd.errors import DriverError

_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def option(first: str, **values: str | int | bool) -> str:
    """``first,key=value,...``: commas in values doubled, booleans as on and off, ``_`` in keys written ``-``.

    A key that contains a dot is passed with ``__`` for it (``cache__direct``).
    """
    parts = [first] if first else []
    for key, value in values.items():
        name = key.replace("__", ".").replace("_", "-")
        parts.append(f"{name}={_text(name, value)}")
    return ",".join(parts)


def word(what: str, text: str) -> str:
    """``text`` itself, if it is a plain name such as a machine or CPU model. Raises DriverError if not."""
    if not _WORD.fullmatch(text):
        raise DriverError(f"{what} {text!r} is not a name that QEMU knows")
    return text


def digest(text: str) -> str:
    """``text`` itself, if it is a SHA-256 in lower-case hex, which is safe as a file's name.

    Raises DriverError if it is not.
    """
    if not _SHA256.fullmatch(text):
        raise DriverError(f"{text!r} is not a SHA-256 digest", hint="boot files are known by their content")
    return text


def plain(what: str, text: str) -> str:
    """``text`` itself, if it has no control characters. Raises DriverError if it has."""
    if not text.isprintable():
        raise DriverError(f"{what} contains characters that cannot be printed")
    return text


def _text(key: str, value: str | int | bool) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return plain(key, str(value)).replace(",", ",,")
