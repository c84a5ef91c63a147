"""What a running relocation looks like: a bar on a terminal, some plain lines elsewhere, or JSON."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Protocol, Self, TextIO

from attrs import define, field

from relocd.cli.client import JsonObject
from relocd.cli.failures import printable
from relocd.cli.reading import Reading

LINE_INTERVAL_S = 1.0
"""Plain lines go into logs: at most one a second."""


class View(Protocol):
    """Shows one relocation, as a context: ``update`` gets each progress object of docs/control.md."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def update(self, event: JsonObject) -> None: ...


def view_for(domain: str, host: str, stream: TextIO | None = None) -> View:
    """The view for people: a bar if ``stream`` (stderr unless given) is a terminal, else lines."""
    stream = stream or sys.stderr
    title = printable(f"{domain} to {host}")
    if not stream.isatty():
        return LineView(title, stream)
    from relocd.cli.bar import BarView  # what it is made of takes as long to load as all the rest

    return BarView(title, stream)


@define
class LineView:
    """One line when the phase or the round has changed, at most one a second."""

    title: str
    stream: TextIO
    clock: Callable[[], float] = time.monotonic
    _reading: Reading = field(factory=Reading, init=False)
    _shown: str = field(default="", init=False)
    _shown_at: float | None = field(default=None, init=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def update(self, event: JsonObject) -> None:
        """Print a line if there is a new step and the last line is a second old."""
        now = self._reading
        now.take(event)
        if news := now.take_news(event):
            print(f"{self.title}: {news}", file=self.stream, flush=True)
        moment = self.clock()
        if now.step == self._shown or (
            self._shown_at is not None and moment - self._shown_at < LINE_INTERVAL_S
        ):
            return
        self._shown, self._shown_at = now.step, moment
        details = ", ".join(text for text in (f"{now.percent:.0f}%", now.numbers, now.eta) if text)
        print(f"{self.title}: {now.step} ({details})", file=self.stream, flush=True)


@define
class JsonView:
    """Every progress object as a line of JSON."""

    stream: TextIO

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def update(self, event: JsonObject) -> None:
        """Print the object."""
        print(json.dumps(event), file=self.stream, flush=True)
