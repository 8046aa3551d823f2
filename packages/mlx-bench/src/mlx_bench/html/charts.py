"""Charts as inline SVG; pure. Colours are CSS classes, so that light and dark share one drawing."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

from mlx_bench.html.scale import Scale, round_ticks, tick_text
from mlx_bench.stats import percentile

_WIDTH, _HEIGHT = 520, 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 16, 14, 40
_MOST_BINS = 40


@dataclass(frozen=True, slots=True)
class Mark:
    """One value on a chart, with its interval if it has one.

    Attributes:
        x: Its position: an index for categories, a number else.
    """

    x: float
    y: float
    low: float | None = None
    high: float | None = None
    tip: str = ""


@dataclass(frozen=True, slots=True)
class Series:
    """Marks of one colour, which belong together."""

    name: str
    marks: tuple[Mark, ...]


def line_chart(title: str, series: Sequence[Series], labels: Sequence[str], *, x_title: str) -> str:
    """A figure with a line a series over evenly spaced categories, whiskers for intervals."""
    xs = Scale(0, max(len(labels) - 1, 1), _LEFT + 28, _WIDTH - _RIGHT - 28)
    tops = [mark.high or mark.y for line in series for mark in line.marks]
    ys, ticks = _value_axis(max(tops, default=1))
    parts = [*_grid(ys, ticks)]
    parts += [
        _text(xs.at(index), _HEIGHT - _BOTTOM + 16, label, "tick middle")
        for index, label in enumerate(labels)
    ]
    for number, line in enumerate(series):
        parts += _line(line, number, xs, ys)
    return _figure(title, parts, x_title, [line.name for line in series])


def dot_chart(title: str, series: Sequence[Series], *, x_title: str) -> str:
    """A figure with a dot a sample, in the order of time."""
    marks = [mark for line in series for mark in line.marks]
    last = max((mark.x for mark in marks), default=1)
    xs = Scale(1, max(last, 2), _LEFT + 20, _WIDTH - _RIGHT - 20)
    ys, ticks = _value_axis(max((mark.y for mark in marks), default=1))
    parts = [*_grid(ys, ticks)]
    step = max(1, round(last / 10))
    parts += [
        _text(xs.at(index), _HEIGHT - _BOTTOM + 16, str(index), "tick middle")
        for index in range(1, int(last) + 1, step)
    ]
    for number, line in enumerate(series):
        parts += [_dot(mark, number, xs, ys) for mark in line.marks]
    return _figure(title, parts, x_title, [line.name for line in series])


def histogram(title: str, values: Sequence[float], *, x_title: str) -> str:
    """A figure of how often values fall where, up to the 99.5th percentile, with the median."""
    shown_high = percentile(values, 0.995)
    shown = [value for value in values if value <= shown_high]
    ticks = round_ticks(min(shown), max(shown), wanted=6)
    bins = min(_MOST_BINS, max(8, round(len(shown) ** 0.5) * 2))
    width = (ticks[-1] - ticks[0]) / bins
    counts = [0] * bins
    for value in shown:
        counts[min(int((value - ticks[0]) / width), bins - 1)] += 1
    xs = Scale(ticks[0], ticks[-1], _LEFT, _WIDTH - _RIGHT)
    ys, y_ticks = _value_axis(max(counts))
    parts = [*_grid(ys, [tick for tick in y_ticks if tick == int(tick)])]
    for position, count in enumerate(counts):
        parts += _bar(position, count, width, ticks[0], xs, ys)
    parts += [
        _text(xs.at(tick), _HEIGHT - _BOTTOM + 16, tick_text(tick), "tick middle") for tick in ticks
    ]
    middle = percentile(values, 0.5)
    parts.append(
        f'<line class="reference" x1="{xs.at(middle):.1f}" x2="{xs.at(middle):.1f}" '
        f'y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}"/>'
    )
    anchor, shift = ("end", -6) if xs.at(middle) > _WIDTH * 0.7 else ("start", 6)
    parts.append(_text(xs.at(middle) + shift, _TOP + 9, f"median {middle:.3g}", f"label {anchor}"))
    left_out = len(values) - len(shown)
    note = f"{x_title}; {left_out} beyond not shown" if left_out else x_title
    return _figure(title, parts, note)


def _value_axis(top: float) -> tuple[Scale, list[float]]:
    ticks = round_ticks(0, top if top > 0 else 1)
    return Scale(ticks[0], ticks[-1], _HEIGHT - _BOTTOM, _TOP), ticks


def _grid(ys: Scale, ticks: Sequence[float]) -> Iterator[str]:
    for tick in ticks:
        y = ys.at(tick)
        kind = "base" if tick == 0 else "grid"
        yield (
            f'<line class="{kind}" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        )
        yield _text(_LEFT - 8, y + 4, tick_text(tick), "tick end")


def _line(line: Series, number: int, xs: Scale, ys: Scale) -> Iterator[str]:
    points = " ".join(f"{xs.at(mark.x):.1f},{ys.at(mark.y):.1f}" for mark in line.marks)
    yield f'<polyline class="line s{number}" points="{points}"/>'
    for mark in line.marks:
        if mark.low is not None and mark.high is not None:
            x = xs.at(mark.x)
            yield (
                f'<line class="whisker s{number}" x1="{x:.1f}" x2="{x:.1f}" '
                f'y1="{ys.at(mark.low):.1f}" y2="{ys.at(mark.high):.1f}"/>'
            )
        yield _dot(mark, number, xs, ys)


def _dot(mark: Mark, number: int, xs: Scale, ys: Scale) -> str:
    return (
        f'<circle class="dot s{number}" cx="{xs.at(mark.x):.1f}" cy="{ys.at(mark.y):.1f}" r="4.5" '
        f'tabindex="0" data-tip="{escape(mark.tip)}"><title>{escape(mark.tip)}</title></circle>'
    )


def _bar(
    position: int, count: int, width: float, first: float, xs: Scale, ys: Scale
) -> Iterator[str]:
    if not count:
        return
    low, high = first + position * width, first + (position + 1) * width
    left, right = xs.at(low) + 1, xs.at(high) - 1
    tip = escape(f"{count} gaps from {low:.3g} to {high:.3g} ms")
    yield (
        f'<rect class="bar s0" x="{left:.1f}" y="{ys.at(count):.1f}" '
        f'width="{max(right - left, 1):.1f}" height="{ys.at(0) - ys.at(count):.1f}" rx="2" '
        f'data-tip="{tip}"><title>{tip}</title></rect>'
    )


def _text(x: float, y: float, text: str, kind: str) -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>'


def _figure(title: str, parts: Sequence[str], x_title: str, names: Sequence[str] = ()) -> str:
    axis = _text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 6, x_title, "axis middle")
    legend = ""
    if len(names) > 1:
        keys = "".join(
            f'<span class="key"><i class="swatch s{number}"></i>{escape(name)}</span>'
            for number, name in enumerate(names)
        )
        legend = f'<div class="legend">{keys}</div>'
    return (
        f"<figure><figcaption>{escape(title)}</figcaption>{legend}"
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)}">'
        f"{''.join(parts)}{axis}</svg></figure>"
    )
