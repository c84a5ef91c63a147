"""Quantities on the command line: how a rate is written."""

from __future__ import annotations

import re

import click

UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


class Rate(click.ParamType[int]):
    """Bytes per second: a number, and K, M or G for units of 1024, 1024^2 and 1024^3."""

    name = "rate"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The number of bytes per second that ``value`` means."""
        if isinstance(value, int):
            return value
        found = re.fullmatch(r"([0-9]{1,12}(?:\.[0-9]{1,6})?)([KMG]?)", str(value).upper())
        if found is None:
            self.fail(
                f"{str(value)[:40]!r} is no rate: write 50M or 1.5G, bytes per second in units of 1024."
            )
        number, unit = found.groups()
        return round(float(number) * UNITS[unit])
