"""Quantities on the command line: how a rate is written, and what limits a relocation."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeVar

import click

CommandT = TypeVar("CommandT", bound=Callable[..., object])

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


def limit_options(command: CommandT) -> CommandT:
    """Options for what a relocation may take, by the names of ``commands.Limits``."""
    for option in (
        click.option(
            "--timeout",
            "max_duration_s",
            type=click.FloatRange(min=0),
            metavar="SECONDS",
            help="Give up if it is not decided by then. 0: no limit.",
        ),
        click.option(
            "--max-downtime",
            "max_downtime_ms",
            type=click.IntRange(1, 60_000),
            metavar="MS",
            help="The longest pause to allow if a shorter one does not do.",
        ),
        click.option(
            "--max-bandwidth",
            "max_bandwidth_bytes_s",
            type=Rate(),
            metavar="RATE",
            help="Send at most this much. 0: no limit.",
        ),
    ):
        command = option(command)
    return command
