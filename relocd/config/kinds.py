"""Kinds of settings: how the text of a value becomes a field of Config, and how both look to people."""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from attrs import field, frozen

from relocd.sxp import dumps

_TRUE = ("yes", "y", "1", "on", "true", "t")
_FALSE = ("no", "n", "0", "off", "false", "f")


class Kind(Protocol):
    """One kind. ``parse`` raises ValueError that says what the value must be."""

    @property
    def unit(self) -> str:
        """Of the number in the file; empty if it is no quantity."""

    @property
    def range(self) -> str:
        """What may be written, in words."""

    @property
    def many(self) -> bool:
        """Whether a setting may have several values; then ``parse`` gives a tuple for each of them."""

    def parse(self, text: str) -> Any:
        """The value of the field that ``text`` means."""

    def show(self, value: Any) -> str:
        """How ``value`` is written in the file."""


@frozen
class Flag:
    """Yes or no, in all of xend's spellings."""

    unit = ""
    range = "yes or no"
    many = False

    def parse(self, text: str) -> bool:
        word = text.lower()
        if word not in _TRUE + _FALSE:
            raise ValueError("must be yes or no")
        return word in _TRUE

    def show(self, value: bool) -> str:
        return dumps(value)


@frozen
class Whole:
    """A whole number of ``unit``; the field holds it times ``scale``."""

    low: int
    high: int
    unit: str = ""
    scale: int = 1
    many = False

    @property
    def range(self) -> str:
        return f"{self.low} to {self.high}"

    def parse(self, text: str) -> int:
        if not re.fullmatch("[0-9]{1,18}", text) or not self.low <= int(text) <= self.high:
            raise ValueError(f"must be a whole number{of(self.unit)} from {self.range}")
        return int(text) * self.scale

    def show(self, value: int) -> str:
        return str(value // self.scale)


@frozen
class OrAuto:
    """What ``kind`` takes, or ``auto``: the field is None then."""

    kind: Whole
    many = False

    @property
    def unit(self) -> str:
        return self.kind.unit

    @property
    def range(self) -> str:
        return f"auto, or {self.kind.range}"

    def parse(self, text: str) -> int | None:
        if text.lower() == "auto":
            return None
        try:
            return self.kind.parse(text)
        except ValueError as error:
            raise ValueError(f"{error}, or auto") from None

    def show(self, value: int | None) -> str:
        return "auto" if value is None else self.kind.show(value)


@frozen
class Seconds:
    """A number of seconds, decimals allowed."""

    low: float
    high: float
    unit = "s"
    many = False

    @property
    def range(self) -> str:
        return f"{self.low:g} to {self.high:g}"

    def parse(self, text: str) -> float:
        if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text) or not self.low <= float(text) <= self.high:
            raise ValueError(f"must be a number of seconds from {self.range}")
        return float(text)

    def show(self, value: float) -> str:
        return f"{value:g}"


@frozen
class Choice:
    """One of a few words, in any case. ``synonyms`` lists others that are understood as well."""

    choices: type[enum.StrEnum]
    synonyms: Mapping[str, str] = field(factory=dict)
    unit = ""
    many = False

    @property
    def range(self) -> str:
        *others, last = [choice.value for choice in self.choices]
        return f"{', '.join(others)} or {last}"

    def parse(self, text: str) -> enum.StrEnum:
        word = text.lower()
        try:
            return self.choices(self.synonyms.get(word, word))
        except ValueError:
            raise ValueError(f"must be {self.range}") from None

    def show(self, value: enum.StrEnum) -> str:
        return value.value


@frozen
class Text:
    """A text that matches ``form``; ``range`` says the same in words."""

    form: str
    range: str
    unit = ""
    many = False

    def parse(self, text: str) -> str:
        if not re.fullmatch(self.form, text):
            raise ValueError(f"must be {self.range}")
        return text

    def show(self, value: str) -> str:
        return dumps(value)


@frozen
class Words:
    """Any number of words, separated by any white space or written as several values.

    ``check`` raises ConfigError or ValueError for a word that cannot be.
    """

    range: str
    check: Callable[[str], object]
    unit = ""
    many = True

    def parse(self, text: str) -> tuple[str, ...]:
        for word in text.split():
            self.check(word)
        return tuple(text.split())

    def show(self, value: tuple[str, ...]) -> str:
        return dumps(" ".join(value))


def of(unit: str) -> str:
    """The unit as it follows a noun."""
    return f" of {unit}" if unit else ""
