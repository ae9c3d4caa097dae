"""Parallel coordinates as SVG: one line per job through its values."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from litdiffusion.reports.html.blocks import Chart
from litdiffusion.reports.html.scales import Scale, scale_for, tick_text

HEIGHT, TOP, BOTTOM, SIDE, PITCH = 300, 34, 14, 62, 190
LOG_FROM = 20
"""Positive values that span at least this factor get a logarithmic axis."""


@dataclass(frozen=True)
class Line:
    """A job: its name, its values as typed, its result."""

    name: str
    values: Sequence[str]
    result: float
    best: bool = False


@dataclass(frozen=True)
class Axis:
    """A vertical axis: its name, and the place of each value with its text."""

    name: str
    places: dict[str, float]
    ticks: Sequence[tuple[str, float]]


def parallel_chart(names: Sequence[str], result: str, lines: Sequence[Line], caption: str) -> Chart:
    """A figure with an axis for each name, and the results on the last one."""
    axes = [_axis(name, [line.values[k] for line in lines]) for k, name in enumerate(names)]
    scale = scale_for([line.result for line in lines], HEIGHT - BOTTOM, TOP)
    ends = Axis(result, {}, [(tick_text(tick), scale(tick)) for tick in scale.ticks()])
    width = 2 * SIDE + PITCH * len(names)
    parts = [_drawn(axis, SIDE + PITCH * k, k == len(names)) for k, axis in enumerate([*axes, ends])]
    parts += [_line(line, axes, scale) for line in sorted(lines, key=lambda line: line.best)]
    label = f"Parallel coordinates of {len(lines)} jobs over {', '.join(names)} and {result}"
    start = Markup('<svg class="chart" viewBox="0 0 {} {}" style="max-width: {}px" role="img" aria-label="{}">')
    svg = start.format(width, HEIGHT, round(1.4 * width), label) + Markup("").join(parts) + Markup("</svg>")
    return Chart(svg, f"From {', '.join(names)} to {result}", caption, wide=True)


def _axis(name: str, values: Sequence[str]) -> Axis:
    """Numbers at their places, if all values are numbers; else words at even distances."""
    distinct = sorted(set(values), key=_order)
    numbers = [_number(value) for value in distinct]
    if None not in numbers:
        low, high = numbers[0], numbers[-1]
        scale = scale_for(numbers, HEIGHT - BOTTOM, TOP, low > 0 and high / low >= LOG_FROM, pad=0.06)
        places = {value: scale(number) for value, number in zip(distinct, numbers, strict=True)}
    else:
        step = (HEIGHT - BOTTOM - TOP) / len(distinct)
        places = {value: round(HEIGHT - BOTTOM - step * (k + 0.5), 2) for k, value in enumerate(distinct)}
    few = distinct if len(distinct) <= 8 else [distinct[round(k * (len(distinct) - 1) / 7)] for k in range(8)]
    return Axis(name, places, [(value, places[value]) for value in few])


def _drawn(axis: Axis, x: int, last: bool) -> Markup:
    text = Markup('<text class="{}" x="{}" y="{}" text-anchor="{}">{}</text>')
    parts = [
        Markup('<line class="axis" x1="{0}" x2="{0}" y1="{1}" y2="{2}"/>').format(x, TOP - 8, HEIGHT - BOTTOM + 4),
        text.format("name", x, TOP - 18, "middle", axis.name[-28:]),
    ]
    side, anchor = (7, "start") if last else (-7, "end")
    parts += [text.format("tick", x + side, y + 4, anchor, value[:14]) for value, y in axis.ticks]
    return Markup("").join(parts)


def _line(line: Line, axes: Sequence[Axis], scale: Scale) -> Markup:
    points = [
        (SIDE + PITCH * k, axis.places[value]) for k, (axis, value) in enumerate(zip(axes, line.values, strict=True))
    ]
    points.append((SIDE + PITCH * len(axes), scale(line.result)))
    path = "M" + "L".join(f"{x} {y}" for x, y in points)
    shape = Markup('<g class="job"><title>{}: {}</title><path class="jobline{}" d="{}"/></g>')
    return shape.format(line.name, f"{line.result:.6g}", " best" * line.best, path)


def _order(value: str) -> tuple[float, str]:
    number = _number(value)
    return (math.inf, value) if number is None else (number, "")


def _number(value: str) -> float | None:
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
