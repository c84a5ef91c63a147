"""The progress bar that a terminal shows while a domain moves."""

from __future__ import annotations

from types import TracebackType
from typing import Self, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from relocd.cli.client import JsonObject
from relocd.cli.reading import Reading

BAR_WIDTH = 16
"""Cells. With the longest texts beside it the whole line fits 80 columns for a name of 12 characters."""


class BarView:
    """A progress bar that vanishes at the end; the caller leaves a summary in its place."""

    def __init__(self, title: str, stream: TextIO) -> None:
        self._reading = Reading()
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            TextColumn("{task.fields[step]}", markup=False),
            BarColumn(bar_width=BAR_WIDTH),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.fields[numbers]}", markup=False),
            TextColumn("{task.fields[eta]}", markup=False),
            console=Console(file=stream, highlight=False),
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._task = self._bar.add_task(title, total=100.0, step="starting", numbers="", eta="")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def update(self, event: JsonObject) -> None:
        """Move the bar."""
        now = self._reading
        now.take(event)
        if news := now.take_news(event):
            self._bar.console.print(news, markup=False)
        self._bar.update(self._task, completed=now.percent, step=now.step, numbers=now.numbers, eta=now.eta)
