"""Plots as inline SVG, drawn without a plotting library: histogram, curves, intervals.

Colours are the page's own (CSS variables ``--ink``, ``--soft``, ``--line``, ``--accent``), so a plot follows
light and dark mode and prints. Every plot has a ``<title>`` for those who cannot see it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from dermseg.words import counted

_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 14, 10, 42
_LONGEST = 44  # letters that the height of a plot has room for
# Told apart by hue, lightness and dash, for readers who do not see all hues.
_STROKES = ("var(--accent)", "#c2571a", "#2a8a57", "#8a4fb5", "#a3812a", "#c23b6b", "#5a6570")
_DASHES = ("", "7 3", "2 3", "9 3 2 3")


@dataclass(frozen=True, slots=True)
class Series:
    """A line through points that all lie within the axes; ``ends`` are intervals of some of them."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    ends: Sequence[tuple[float, float] | None] = ()


@dataclass(frozen=True, slots=True)
class Axis:
    """What an axis shows, and from where to where."""

    label: str
    low: float
    high: float
    counts: bool = False

    def share(self, value: float) -> float:
        """Where a value lies between the ends, 0 to 1, cut at the ends."""
        return min(1.0, max(0.0, (value - self.low) / (self.high - self.low)))

    def ticks(self) -> list[float]:
        """Round numbers between the ends, at most six steps; whole ones where things are counted."""
        step = 10.0 ** math.floor(math.log10((self.high - self.low) / 6))
        step = max(1.0, step) if self.counts else step
        while (self.high - self.low) / step > 6:
            step *= 2.5 if f"{step:e}".startswith("2") else 2
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [round(i * step, 12) for i in range(first, last + 1)]


def histogram(
    values: Sequence[float], x: Axis, title: str, *, bins: int = 20, marks: Sequence[float] = ()
) -> str:
    """How many images have which value; values beyond the ends count in the outermost bins.

    ``marks`` are upright lines, for example the mean.
    """
    counts = [0] * bins
    for value in values:
        counts[min(bins - 1, int(x.share(value) * bins))] += 1
    y = Axis("images", 0.0, max(1.0, 1.08 * max(counts)), counts=True)
    plot = _Plot(x, y, title, 440, 230)
    width = (x.high - x.low) / bins
    for i, count in enumerate(counts):
        if count:
            low, high = x.low + i * width, x.low + (i + 1) * width
            words = f"{_text(low)} to {_text(high)}: {counted(count, 'image')}"
            plot.bar(low, high, count, words)
    for mark in marks:
        plot.line([mark, mark], [y.low, y.high], "var(--ink)", "4 3", 1.5)
    return plot.svg()


def bars(shares: Sequence[float], x: Axis, title: str) -> str:
    """Bars of equal width over the whole axis: what share lies in which bin."""
    plot = _Plot(x, Axis(title, 0.0, max(1e-6, 1.08 * max(shares))), title, 440, 300)
    width = (x.high - x.low) / len(shares)
    for i, share in enumerate(shares):
        low = x.low + i * width
        plot.bar(low, low + width, share, f"{_text(low)} to {_text(low + width)}: {100 * share:.2g} %")
    return plot.svg()


def scatter(
    xs: Sequence[float], ys: Sequence[float], x: Axis, y: Axis, title: str, *, diagonal: bool = False
) -> str:
    """A dot per image; ``diagonal`` adds the line where both are the same."""
    plot = _Plot(x, y, title, 440, 300 if diagonal else 230)
    if diagonal:
        plot.line([x.low, x.high], [y.low, y.high], "var(--soft)", "4 4", 1.0)
    for px, py in zip(xs, ys, strict=True):
        plot.dot(px, py, "var(--accent)", f"{_text(px)}, {_text(py)}", faint=True)
    return plot.svg()


def curves(
    series: Sequence[Series], x: Axis, y: Axis, title: str, *, diagonal: bool = False, small: bool = False
) -> str:
    """Lines with dots; ``diagonal`` adds the line of perfect agreement. The legend is left to `legend`."""
    plot = _Plot(x, y, title, 250 if small else 440, 170 if small else 300)
    if diagonal:
        plot.line([x.low, x.high], [y.low, y.high], "var(--soft)", "4 4", 1.0)
    for i, one in enumerate(series):
        plot.line(one.x, one.y, stroke_of(i), _DASHES[i // len(_STROKES) % len(_DASHES)], 2.0)
        for px, ends in zip(one.x, one.ends, strict=False):
            if ends is not None:
                plot.line([px, px], ends, stroke_of(i), "", 1.2)
        for px, py in zip(one.x, one.y, strict=True):
            plot.dot(px, py, stroke_of(i), f"{one.name}: {_text(px)}, {_text(py)}")
    return plot.svg()


def legend(names: Sequence[str]) -> str:
    """The names of `curves` with their strokes, as HTML."""
    items = (
        f'<li><svg width="30" height="10" aria-hidden="true"><line x1="1" x2="29" y1="5" y2="5" '
        f'stroke="{stroke_of(i)}" stroke-width="2.5" '
        f'stroke-dasharray="{_DASHES[i // len(_STROKES) % len(_DASHES)]}"/></svg>{escape(name)}</li>'
        for i, name in enumerate(names)
    )
    return f'<ul class="legend">{"".join(items)}</ul>'


def interval_bar(mean: float, ends: Sequence[float] | None, x: Axis, words: str, *, mark: float) -> str:
    """A small picture for a table's cell: a dot with its interval, and an upright line at ``mark``."""
    width, height = 180, 18

    def at(value: float) -> float:
        return 4 + (width - 8) * x.share(value)

    parts = [
        f'<line x1="{at(mark):.1f}" x2="{at(mark):.1f}" y1="0" y2="{height}" '
        'stroke="var(--soft)" stroke-width="1"/>'
    ]
    if ends is not None:
        parts.append(
            f'<line x1="{at(ends[0]):.1f}" x2="{at(ends[1]):.1f}" y1="9" y2="9" stroke="var(--accent)" '
            'stroke-width="2"/>'
        )
    parts.append(f'<circle cx="{at(mean):.1f}" cy="9" r="4" fill="var(--accent)"/>')
    return (
        f'<svg class="interval" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img">'
        f"<title>{escape(words)}</title>{''.join(parts)}</svg>"
    )


def stroke_of(number: int) -> str:
    """The colour of the line with this number."""
    return _STROKES[number % len(_STROKES)]


class _Plot:
    """Axes with a grid, onto which marks are put in the axes' units."""

    def __init__(self, x: Axis, y: Axis, title: str, width: int, height: int) -> None:
        self.x, self.y, self.title, self.width, self.height = x, y, title, width, height
        self.parts: list[str] = []
        right, bottom = width - _RIGHT, height - _BOTTOM
        for value in y.ticks():
            at = self._y(value)
            self.parts.append(f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{at}" y2="{at}"/>')
            self.parts.append(f'<text x="{_LEFT - 6}" y="{at + 4}" text-anchor="end">{_text(value)}</text>')
        for value in x.ticks():
            at = self._x(value)
            self.parts.append(f'<line class="grid" x1="{at}" x2="{at}" y1="{_TOP}" y2="{bottom}"/>')
            self.parts.append(f'<text x="{at}" y="{bottom + 16}" text-anchor="middle">{_text(value)}</text>')
        middle = (_TOP + bottom) / 2
        self.parts.append(
            f'<text x="{(_LEFT + right) / 2}" y="{height - 6}" text-anchor="middle">'
            f"{escape(_short(x.label))}</text>"
            f'<text x="13" y="{middle}" text-anchor="middle" transform="rotate(-90 13 {middle})">'
            f"{escape(_short(y.label))}</text>"
        )

    def _x(self, value: float) -> float:
        return round(_LEFT + (self.width - _LEFT - _RIGHT) * self.x.share(value), 1)

    def _y(self, value: float) -> float:
        return round(self.height - _BOTTOM - (self.height - _TOP - _BOTTOM) * self.y.share(value), 1)

    def bar(self, low: float, high: float, value: float, words: str) -> None:
        left, top = self._x(low), self._y(value)
        self.parts.append(
            f'<rect x="{left + 0.5}" y="{top}" width="{max(0.5, self._x(high) - left - 1):.1f}" '
            f'height="{self._y(self.y.low) - top:.1f}" fill="var(--accent)">'
            f"<title>{escape(words)}</title></rect>"
        )

    def line(self, x: Sequence[float], y: Sequence[float], stroke: str, dash: str, width: float) -> None:
        points = " ".join(f"{self._x(px)},{self._y(py)}" for px, py in zip(x, y, strict=True))
        self.parts.append(
            f'<polyline points="{points}" fill="none" stroke="{stroke}" stroke-width="{width}" '
            f'stroke-dasharray="{dash}"/>'
        )

    def dot(self, x: float, y: float, fill: str, words: str, *, faint: bool = False) -> None:
        size = 'r="2.6" fill-opacity="0.5"' if faint else 'r="3.2"'
        self.parts.append(
            f'<circle cx="{self._x(x)}" cy="{self._y(y)}" {size} fill="{fill}">'
            f"<title>{escape(words)}</title></circle>"
        )

    def svg(self) -> str:
        return (
            f'<svg class="plot" viewBox="0 0 {self.width} {self.height}" role="img">'
            f"<title>{escape(self.title)}</title>{''.join(self.parts)}</svg>"
        )


def _short(label: str) -> str:
    """A label that fits beside its axis: of a longer one, in which a name is long, both ends."""
    return label if len(label) <= _LONGEST else f"{label[: _LONGEST - 20]}\u2026{label[-19:]}"


def _text(value: float) -> str:
    """A number as short as it can be without hiding a difference."""
    whole = abs(value) >= 1000 and value == round(value)  # a count: 10,000 and not 1e+04
    return (f"{value:,.0f}" if whole else f"{value:.4g}").replace("-", "\u2212")
