"""Charts as inline SVG, drawn with the page's own colours. Pure: text out of numbers.

Why by hand: the page must be one file that loads nothing, works in light and dark, and prints. Colours are
classes (c0 to c5, `grid`, `note`), which the page's style sheet defines; a point's exact value is its tooltip.
Units: pixels inside; values as the caller's axes say.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from html import escape

WIDTH, WIDTH_ALONE, HEIGHT = 720, 1490, 320
LEFT, RIGHT, TOP, BOTTOM = 72, 20, 18, 52
# A line has room for so many dots; more would be a stripe.
DOTS_MAX = 60

Place = Callable[[float], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """A line; `says` are tooltips, one a point; points at `hollow` are drawn as rings."""

    name: str
    points: Sequence[tuple[float, float]]
    colour: int = 0
    says: Sequence[str] = ()
    hollow: Sequence[bool] = ()
    fill: bool = False
    dots: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """From `low` to `high`, with labelled ticks; `place` maps a value to a part of the axis, 0 to 1."""

    title: str
    ticks: Sequence[tuple[float, str]]
    place: Place = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A dashed line across the chart, at a value of one axis."""

    at: float
    says: str
    across: bool = True


def linear(title: str, high: float, low: float = 0.0) -> Axis:
    """From `low` to a round number not below `high`."""
    span = max(high - low, 1e-9)
    step = nice(span / 5)
    top = low + math.ceil(span / step - 1e-9) * step
    count = round((top - low) / step)
    ticks = [(low + step * number, short(low + step * number)) for number in range(count + 1)]
    return Axis(title=title, ticks=ticks, place=lambda value: (value - low) / (top - low))


def exact(title: str, high: float) -> Axis:
    """From 0 to `high` and no further: for time."""
    step, high = nice(max(high, 1e-9) / 6), max(high, 1e-9)
    ticks = [(step * number, short(step * number)) for number in range(int(high / step + 1e-9) + 1)]
    return Axis(title=title, ticks=ticks, place=lambda value: value / high)


def logarithmic(title: str, low: float, high: float) -> Axis:
    """Decades, with 2 and 5 between where there are few of them."""
    low, high = max(low, 1e-6), max(high, low * 1.001, 1e-6)
    steps = (1, 2, 5) if math.log10(high / low) < 3.2 else (1,)
    values = [
        step * 10.0**power
        for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        for step in steps
    ]
    first = max(value for value in values if value <= low * (1 + 1e-9))
    last = min((value for value in values if value >= high * (1 - 1e-9)), default=values[-1])
    span = math.log(last / first) or 1.0
    ticks = [(value, short(value)) for value in values if first <= value <= last]
    return Axis(title=title, ticks=ticks, place=lambda value: math.log(max(value, first) / first) / span)


def spread(title: str, values: Sequence[float]) -> Axis:
    """Logarithmic where the values span more than a factor of 20, else linear from 0."""
    positive = [value for value in values if value > 0] or [1.0]
    low, high = min(positive), max(positive)
    return logarithmic(title, low, high) if high / low > 20 else linear(title, high)


def nines(title: str) -> Axis:
    """Percentiles, with as much room for 99 to 99.9 as for 0 to 90: to 99.99."""
    span = math.log10(1 / (1 - 0.9999))
    shown = (0, 50, 90, 95, 99, 99.9, 99.99)
    return Axis(
        title=title,
        ticks=[(float(percent), f"{percent:g}") for percent in shown],
        place=lambda percent: math.log10(1 / max(1 - percent / 100, 1e-9)) / span,
    )


def chart(
    across: Axis,
    up: Axis,
    lines: Sequence[Series],
    marks: Sequence[Mark] = (),
    *,
    label: str = "",
    width: int = WIDTH,
) -> str:
    """An SVG element."""
    right = width - RIGHT

    def x(value: float) -> float:
        return LEFT + min(1.0, max(0.0, across.place(value))) * (right - LEFT)

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - min(1.0, max(0.0, up.place(value))) * (HEIGHT - TOP - BOTTOM)

    parts = [f'<svg viewBox="0 0 {width} {HEIGHT}" role="img" aria-label="{escape(label or up.title)}">']
    parts += _grid(across, up, x, y, right)
    parts += [part for mark in marks for part in _mark(mark, x, y, right)]
    parts += [part for line in lines if line.points for part in _line(line, x, y)]
    return "".join([*parts, "</svg>"])


def _grid(across: Axis, up: Axis, x: Place, y: Place, right: int) -> list[str]:
    bottom = HEIGHT - BOTTOM
    parts = [
        f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{y(value):.1f}" y2="{y(value):.1f}"/>'
        f'<text class="tick" x="{LEFT - 8}" y="{y(value) + 4:.1f}" text-anchor="end">{escape(text)}</text>'
        for value, text in up.ticks
    ]
    parts += [
        f'<line class="stub" x1="{x(value):.1f}" x2="{x(value):.1f}" y1="{bottom}" y2="{bottom + 4}"/>'
        f'<text class="tick" x="{x(value):.1f}" y="{bottom + 20}" text-anchor="middle">{escape(text)}</text>'
        for value, text in across.ticks
    ]
    parts.append(f'<line class="base" x1="{LEFT}" x2="{right}" y1="{bottom}" y2="{bottom}"/>')
    parts.append(
        f'<text class="title" x="{(LEFT + right) / 2:.0f}" y="{HEIGHT - 8}" text-anchor="middle">'
        f"{escape(across.title)}</text>"
        f'<text class="title" transform="translate(14 {(TOP + bottom) / 2:.0f}) rotate(-90)" text-anchor="middle">'
        f"{escape(up.title)}</text>"
    )
    return parts


def _mark(mark: Mark, x: Place, y: Place, right: int) -> list[str]:
    if mark.across:
        at = y(mark.at)
        return [
            f'<line class="mark" x1="{LEFT}" x2="{right}" y1="{at:.1f}" y2="{at:.1f}"/>'
            f'<text class="note" x="{LEFT + 6}" y="{at - 5:.1f}">{escape(mark.says)}</text>'
        ]
    at = x(mark.at)
    return [
        f'<line class="mark" x1="{at:.1f}" x2="{at:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>'
        f'<text class="note" x="{at + 4:.1f}" y="{TOP + 10}">{escape(mark.says)}</text>'
    ]


def _line(line: Series, x: Place, y: Place) -> list[str]:
    places = [(x(across), y(up)) for across, up in line.points]
    path = "M" + "L".join(f"{left:.1f} {top:.1f}" for left, top in places)
    parts = []
    if line.fill:
        bottom = HEIGHT - BOTTOM
        area = f"{path}L{places[-1][0]:.1f} {bottom}L{places[0][0]:.1f} {bottom}Z"
        parts.append(f'<path class="area c{line.colour}" d="{area}"/>')
    parts.append(f'<path class="line c{line.colour}" d="{path}"/>')
    if line.dots and len(places) <= DOTS_MAX:
        for number, (left, top) in enumerate(places):
            ring = " ring" if number < len(line.hollow) and line.hollow[number] else ""
            says = f"<title>{escape(line.says[number])}</title>" if number < len(line.says) else ""
            parts.append(
                f'<circle class="dot c{line.colour}{ring}" cx="{left:.1f}" cy="{top:.1f}" r="4">{says}</circle>'
            )
    return parts


def legend(lines: Sequence[Series]) -> str:
    items = "".join(f'<li><i class="c{line.colour}"></i>{escape(line.name)}</li>' for line in lines if line.points)
    return f'<ul class="legend">{items}</ul>'


def nice(value: float) -> float:
    """The next of 1, 2, 2.5, 5 and 10 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 2.5, 5, 10) if step * power >= value * 0.9999)


def short(value: float) -> str:
    """12000 as 12k, 0.25 as 0.25."""
    if value >= 1_000_000:
        return f"{value / 1_000_000:g}M"
    return f"{value / 1000:g}k" if value >= 10_000 else f"{value:,.6g}"
