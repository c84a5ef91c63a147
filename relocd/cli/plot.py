"""Draws curves over time as SVG: stacked panels with one time axis, marks and bands across all. Text only, no I/O.

Colours are those of Okabe and Ito, which the colour-blind can tell apart, lightened for dark viewers.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence

from attrs import field, frozen

WIDTH, HEIGHT = 960, 600
EDGE, LEFT, RIGHT, TOP, BOTTOM = 24, 78, 28, 122, 52
GAP = 60
"""Canvas and margins, in pixels; so much is between panels, where title and legend of the lower one stand."""

LETTER_PX = 6.6
"""About the width of a letter of the usual size."""

TICKS_X, TICKS_Y = 10, 5
"""About so many ticks an axis."""

DOTS_MAX = 80
"""Longer curves get no dots: they would be a rope."""

BAND_LABEL_PX = 160
"""Wider bands have room for their label."""

LEGEND_PX, LEGEND_ROW_PX, LEGEND_ROWS_MAX = 53, 18, 4
"""What a name in a legend takes beside its letters, and the height and number of rows if one is not enough."""

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#8c6d00", "#3f4a8a")
DARK_COLOURS = ("#56b4e9", "#ff9a4d", "#3fd0a0", "#e5a3c7", "#e6c84f", "#9fa8e8")

Units = tuple[tuple[float, str], ...]
"""Sizes of units and their names, the largest first; the largest that is no larger than the data is taken."""

BYTES: Units = ((1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"), (1, "B"))


@frozen
class Series:
    """One curve: points of seconds and values, none negative, with dots unless there are many. ``colour``: index of
    COLOURS."""

    name: str
    points: tuple[tuple[float, float], ...]
    colour: int = 0
    filled: bool = False
    dots: bool = True


@frozen
class Panel:
    """Curves with one axis of values, in bytes unless ``units`` says otherwise. ``suffix`` follows the unit: ``/s``
    for rates."""

    title: str
    series: tuple[Series, ...]
    suffix: str = ""
    units: Units = BYTES


@frozen
class Mark:
    """A vertical line. ``bad`` ones are red."""

    at_s: float
    label: str
    bad: bool = False


@frozen
class Band:
    """A shaded stretch of time."""

    start_s: float
    end_s: float
    label: str


@frozen
class Plot:
    """A whole picture. Times begin at 0; ``height`` is in pixels."""

    title: str
    subtitle: str
    panels: tuple[Panel, ...]
    marks: tuple[Mark, ...] = ()
    bands: tuple[Band, ...] = ()
    time_label: str = field(default="seconds since the relocation began")
    height: int = HEIGHT


def svg(plot: Plot) -> str:
    """The picture as an SVG document. Raises ValueError for one without a point, or with a number that is none."""
    _check(plot)
    times = [at_s for panel in plot.panels for series in panel.series for at_s, _ in series.points]
    times += [mark.at_s for mark in plot.marks] + [band.end_s for band in plot.bands]
    across = _Axis.of(max(times), LEFT, WIDTH - RIGHT, TICKS_X, snug=True)
    frames = _frames(plot.panels, plot.height)
    whole = _Frame(frames[0].top, plot.height - BOTTOM)
    between = frames[0].bottom + 16 if len(frames) > 1 else whole.top + 16
    body = [
        _text(EDGE, 38, _cut(plot.title, 80), "title"),
        _text(EDGE, 62, _cut(plot.subtitle, 130), "quiet"),
        *(line for band in plot.bands for line in _band(band, across, whole, between)),
    ]
    body += _marks(plot.marks, across, whole, between)
    for panel, frame in zip(plot.panels, frames, strict=True):
        body += _panel(panel, across, frame)
    body += [_text(tick.px, plot.height - BOTTOM + 18, tick.label, "tick middle") for tick in across.ticks]
    body.append(_text((LEFT + WIDTH - RIGHT) / 2, plot.height - 12, plot.time_label, "quiet middle"))
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {plot.height}" '
        f'width="{WIDTH}" height="{plot.height}" '
        f'role="img" aria-label="{html.escape(_clean(plot.title))}">'
    )
    background = f'<rect class="paper" width="{WIDTH}" height="{plot.height}"/>'
    return "\n".join([head, _STYLE, background, *body, "</svg>", ""])


def _check(plot: Plot) -> None:
    numbers = [
        value
        for panel in plot.panels
        for series in panel.series
        for point in series.points
        for value in point
    ]
    if not numbers:
        raise ValueError("there is nothing to draw")
    numbers += [mark.at_s for mark in plot.marks]
    numbers += [value for band in plot.bands for value in (band.start_s, band.end_s)]
    if not all(math.isfinite(value) and value >= 0 for value in numbers):
        raise ValueError("a time or a value is negative or no number")


# -- axes
# --------------------------------------------------------------------------------------------------------------


@frozen
class _Tick:
    px: float
    label: str


@frozen
class _Axis:
    """From values, 0 up to ``top``, to pixels."""

    top: float
    start_px: float
    end_px: float
    ticks: tuple[_Tick, ...]

    @classmethod
    def of(
        cls,
        largest: float,
        start_px: float,
        end_px: float,
        ticks: int,
        *,
        unit: float = 1.0,
        snug: bool = False,
    ) -> _Axis:
        """Ticks at round multiples of ``unit``. It ends with one, or just behind the largest value if ``snug``."""
        step = round_step(largest / unit / ticks)
        count = max(1, math.ceil(largest / unit / step * (1 - 1e-9)))
        top = largest * 1.02 if snug and largest else count * step * unit
        axis = cls(top, start_px, end_px, ())
        values = [number * step for number in range(count + 1) if number * step * unit <= top * (1 + 1e-9)]
        return cls(top, start_px, end_px, tuple(_Tick(axis.px(v * unit), f"{v:.10g}") for v in values))

    def px(self, value: float) -> float:
        """Where a value is drawn; always within the axis."""
        part = min(1.0, max(0.0, value / self.top)) if self.top > 0 else 0.0
        return self.start_px + part * (self.end_px - self.start_px)


def round_step(least: float) -> float:
    """The smallest of 1, 2, 5, 10, 20 ... (and 0.5, 0.2 ...) that is no less than ``least``; 1 for nothing."""
    if least <= 1e-12:
        return 1.0
    power = 10.0 ** math.floor(math.log10(least))
    return float(next((m * power for m in (1, 2, 5) if m * power >= least * (1 - 1e-9)), 10 * power))


# -- parts
# -------------------------------------------------------------------------------------------------------------


@frozen
class _Frame:
    """Where curves may be drawn."""

    top: float
    bottom: float


def _frames(panels: Sequence[Panel], whole_px: int) -> list[_Frame]:
    """Of equal height, each below its title and legend."""
    extra = [LEGEND_ROW_PX * (len(_legend_rows(panel)) - 1) for panel in panels]
    height = (whole_px - TOP - BOTTOM - GAP * (len(panels) - 1) - sum(extra)) / len(panels)
    tops = [TOP + number * (height + GAP) + sum(extra[: number + 1]) for number in range(len(panels))]
    return [_Frame(top, top + height) for top in tops]


def _panel(panel: Panel, across: _Axis, frame: _Frame) -> Iterable[str]:
    top, bottom = frame.top, frame.bottom
    largest = max((value for series in panel.series for _, value in series.points), default=0.0)
    size, unit = next(((size, unit) for size, unit in panel.units if largest >= size), panel.units[-1])
    up = _Axis.of(largest, bottom, top, TICKS_Y, unit=size)
    for tick in up.ticks:
        yield f'<path class="grid" d="M{LEFT} {tick.px:.1f}H{WIDTH - RIGHT}"/>'
        yield _text(LEFT - 8, tick.px + 4, tick.label, "tick end")
    for tick in across.ticks:
        yield f'<path class="grid" d="M{tick.px:.1f} {top:.1f}V{bottom:.1f}"/>'
    yield f'<path class="axis" d="M{LEFT} {top:.1f}V{bottom:.1f}H{WIDTH - RIGHT}"/>'
    rows = _legend_rows(panel)
    middle = top - 28 - LEGEND_ROW_PX * (len(rows) - 1)
    yield _text(EDGE, middle + 4, f"{_cut(panel.title, 40)}, {unit}{panel.suffix}", "panel")
    for number, row in enumerate(rows):
        yield from _legend(row, _legend_start(panel), middle + number * LEGEND_ROW_PX)
    for series in panel.series:
        yield from _curve(series, [(across.px(at_s), up.px(value)) for at_s, value in series.points], bottom)


def _curve(series: Series, points: Sequence[tuple[float, float]], bottom: float) -> Iterable[str]:
    if not points:
        return
    colour = f"c{series.colour % len(COLOURS)}"
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    if series.filled:
        first, last = points[0][0], points[-1][0]
        yield f'<polygon class="{colour} area" points="{first:.1f},{bottom:.1f} {line} {last:.1f},{bottom:.1f}"/>'
    yield f'<polyline class="{colour} curve" points="{line}"/>'
    if series.dots and len(points) <= DOTS_MAX:
        dots = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.2"/>' for x, y in points)
        yield f'<g class="{colour} dot">{dots}</g>'


def _legend_start(panel: Panel) -> float:
    return EDGE + 34 + (min(40, len(panel.title)) + 7) * LETTER_PX * 1.15


def _legend_rows(panel: Panel) -> list[list[Series]]:
    """The curves by rows of the legend, as many as fit beside the title."""
    rows: list[list[Series]] = [[]]
    room = free = WIDTH - _legend_start(panel)
    for series in panel.series:
        free -= LEGEND_PX + min(40, len(series.name)) * LETTER_PX
        if free < 0 and rows[-1]:
            rows.append([])
            free = room - LEGEND_PX - min(40, len(series.name)) * LETTER_PX
        rows[-1].append(series)
    return rows[:LEGEND_ROWS_MAX]


def _legend(series: Sequence[Series], x: float, middle: float) -> Iterable[str]:
    """A short line and the name of each."""
    for one in series:
        name = _cut(one.name, 40)
        yield f'<path class="c{one.colour % len(COLOURS)} curve" d="M{x:.1f} {middle:.1f}h20"/>'
        yield _text(x + 27, middle + 4, name, "legend")
        x += LEGEND_PX + len(name) * LETTER_PX


def _marks(marks: Sequence[Mark], across: _Axis, frame: _Frame, between: float) -> Iterable[str]:
    """Those that are not bad have their label above, if there is room."""
    free_from = -math.inf
    for mark in sorted(marks, key=lambda mark: mark.at_s):
        px = across.px(mark.at_s)
        yield f'<path class="{"bad " if mark.bad else ""}mark" d="M{px:.1f} {frame.top:.1f}V{frame.bottom:.1f}"/>'
        half = len(mark.label) * LETTER_PX / 2
        if mark.bad:
            side = "badtext end" if px > WIDTH / 2 else "badtext"
            yield _text(px + (-6 if px > WIDTH / 2 else 6), between, mark.label, side)
        elif (middle := min(px, WIDTH - half)) - half >= free_from:
            free_from = middle + half + 4
            yield _text(middle, frame.top - 6, mark.label, "small middle")


def _band(band: Band, across: _Axis, frame: _Frame, between: float) -> Iterable[str]:
    start, end = across.px(band.start_s), across.px(band.end_s)
    width = max(2.0, end - start)
    start = min(start, WIDTH - RIGHT - width)
    kind = "wide band" if width > BAND_LABEL_PX else "band"
    height = frame.bottom - frame.top
    yield f'<rect class="{kind}" x="{start:.1f}" y="{frame.top:.1f}" width="{width:.1f}" height="{height:.1f}"/>'
    if width > BAND_LABEL_PX:
        yield _text(start + width / 2, between, band.label, "bandtext middle")
    elif start > WIDTH / 2:
        yield _text(start - 6, between, band.label, "bandtext end")
    else:
        yield _text(start + width + 6, between, band.label, "bandtext")


def _text(x: float, y: float, text: str, kind: str) -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}">{html.escape(_clean(text), quote=False)}</text>'


def _cut(text: str, letters: int) -> str:
    return text if len(text) <= letters else text[: letters - 1] + "…"


def _clean(text: str) -> str:
    """Without what XML does not allow (its production Char), or what turns text around."""
    return "".join(char if char.isprintable() else "?" for char in text)


def _colour_rules(colours: Sequence[str]) -> str:
    return "".join(
        f".c{number}.curve{{stroke:{colour}}}.c{number}.dot,.c{number}.area{{fill:{colour}}}"
        for number, colour in enumerate(colours)
    )


_STYLE = f"""<style>
svg{{color-scheme:light dark}}
text{{font:12px system-ui,-apple-system,"Segoe UI","DejaVu Sans",Verdana,sans-serif;fill:#222}}
.title{{font-size:20px;font-weight:600}} .panel{{font-weight:600}} .quiet{{fill:#666;font-size:13px}}
.tick,.small{{fill:#666;font-size:11px}} .middle{{text-anchor:middle}} .end{{text-anchor:end}}
.paper{{fill:#fff}} .grid{{stroke:#e8e8e8;fill:none}} .axis{{stroke:#999;fill:none}}
.curve{{fill:none;stroke-width:2;stroke-linejoin:round;stroke-linecap:round}} .area{{fill-opacity:.12}}
.panel,.legend{{paint-order:stroke;stroke:#fff;stroke-width:4px}}
.mark{{stroke:#999;stroke-dasharray:2 4;fill:none}} .bad.mark{{stroke:#c0392b;stroke-dasharray:none}}
.badtext{{fill:#c0392b;font-weight:600}}
.band{{fill:#c0392b;fill-opacity:.22}} .wide.band{{fill-opacity:.08}} .bandtext{{fill:#a93226}}
{_colour_rules(COLOURS)}
@media (prefers-color-scheme:dark){{
text{{fill:#e6e6e6}} .quiet,.tick,.small{{fill:#a0a4aa}} .paper{{fill:#15181d}} .grid{{stroke:#2a2f37}}
.panel,.legend{{stroke:#15181d}}
.axis,.mark{{stroke:#6b7280}} .bad.mark{{stroke:#ff7b6b}} .badtext,.bandtext{{fill:#ff9d90}}
.band{{fill:#ff7b6b;fill-opacity:.3}} .wide.band{{fill-opacity:.12}}
{_colour_rules(DARK_COLOURS)}
}}
</style>"""
