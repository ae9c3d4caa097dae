"""Curves over steps as SVG, coloured by the stylesheet. Values appear under the pointer, by CSS alone."""

import bisect
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup

from litdiffusion.reports.html.blocks import Chart
from litdiffusion.reports.html.scales import Scale, scale_for, tick_text
from litdiffusion.reports.numbers import estimate_text, number_text

WIDTH, HEIGHT = 400, 250
LEFT, RIGHT, TOP, BOTTOM = 46, 10, 10, 34
MOST_POINTS, MOST_PLACES, MARKED = 400, 48, 30
"""Largest number of points of a curve and of places with values; curves of fewer points than the last get dots."""
COLOURS = 8
"""Number of colours of the stylesheet: the classes c0 to c7; ``rest`` is a faint one."""

Point = tuple[float, float, float | None]
"""x, y, and the spread of y or None."""


@dataclass(frozen=True)
class Curve:
    """A named curve in a colour of the stylesheet."""

    name: str
    points: Sequence[Point]
    colour: str
    thin: bool = False

    @property
    def finite(self) -> list[Point]:
        """The points that can be shown."""
        return [point for point in self.points if math.isfinite(point[1])]


def colour(index: int) -> str:
    """The class of the curve number ``index``."""
    return f"c{index}" if index < COLOURS else "rest"


def line_chart(
    curves: Sequence[Curve],
    title: str,
    caption: str,
    across: str = "steps",
    level: tuple[float, str] | None = None,
    log: bool | None = None,
) -> Chart | None:
    """A figure of the curves, with a dashed line at ``level`` (value, name); None if no curve has a finite point."""
    shown = [curve for curve in curves if curve.finite]
    if not shown:
        return None
    points = [point for curve in shown for point in curve.finite]
    x = scale_for([0.0, *(point[0] for point in points)], LEFT, WIDTH - RIGHT, log=False, pad=0.02)
    heights, lowest = [end for point in points for end in _ends(point)], min(point[1] for point in points)
    heights = [max(height, lowest / 2) if lowest > 0 else height for height in heights]  # a bar to 0 has no logarithm
    heights += [level[0]] if level else []
    y = scale_for(heights, HEIGHT - BOTTOM, TOP, log)
    parts = [_axes(x, y, across), *(_level(y, *level) if level else ())]
    parts += [_curve(curve, x, y) for curve in shown] + _places(shown, x, y, across)
    label = f"{title}: {', '.join(curve.name for curve in shown)}"
    start = Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">').format(WIDTH, HEIGHT, label)
    legend = [(curve.name, curve.colour) for curve in shown]
    return Chart(start + Markup("").join(parts) + Markup("</svg>"), title, caption, legend)


def _ends(point: Point) -> tuple[float, ...]:
    _, y, spread = point
    return (y,) if spread is None or not math.isfinite(spread) else (y - spread, y + spread)


def _axes(x: Scale, y: Scale, across: str) -> Markup:
    line = Markup('<line class="rule" x1="{}" x2="{}" y1="{}" y2="{}"/>')
    text = Markup('<text class="tick" x="{}" y="{}" text-anchor="{}">{}</text>')
    parts = []
    for tick in y.ticks():
        parts += [
            line.format(LEFT, WIDTH - RIGHT, y(tick), y(tick)),
            text.format(LEFT - 6, y(tick) + 4, "end", tick_text(tick)),
        ]
    for tick in (tick for tick in x.ticks() if tick >= 0):
        parts.append(text.format(x(tick), HEIGHT - BOTTOM + 15, "middle", tick_text(tick)))
    parts.append(line.format(LEFT, WIDTH - RIGHT, HEIGHT - BOTTOM, HEIGHT - BOTTOM))
    parts.append(text.format(WIDTH - RIGHT, HEIGHT - 4, "end", across))
    if y.log:
        parts.append(text.format(0, HEIGHT - 4, "start", "logarithmic"))
    return Markup("").join(parts)


def _level(y: Scale, value: float, name: str) -> list[Markup]:
    place = y(value)
    return [
        Markup('<line class="level" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(LEFT, WIDTH - RIGHT, place, place),
        Markup('<text class="tick" x="{}" y="{}" text-anchor="end">{}</text>').format(WIDTH - RIGHT, place - 4, name),
    ]


def _curve(curve: Curve, x: Scale, y: Scale) -> Markup:
    points = thinned(curve.finite, MOST_POINTS)
    path = "M" + "L".join(f"{x(px)} {y(py)}" for px, py, _ in points)
    parts = [_band(curve, points, x, y), Markup('<path class="line{}" d="{}"/>').format(" thin" * curve.thin, path)]
    if len(points) <= MARKED and not curve.thin:
        parts += [Markup('<circle cx="{}" cy="{}" r="2.6"/>').format(x(px), y(py)) for px, py, _ in points]
    return Markup('<g class="{}">{}</g>').format(curve.colour, Markup("").join(parts))


def _band(curve: Curve, points: Sequence[Point], x: Scale, y: Scale) -> Markup:
    """The spread around a curve, of one point as a bar."""
    spread = [(px, *_ends((px, py, each))) for px, py, each in points if each is not None and math.isfinite(each)]
    if not spread:
        return Markup("")
    bars = [Markup('<path class="bar" d="M{} {}V{}"/>').format(x(px), y(low), y(high)) for px, low, high in spread]
    outline = [f"{x(px)} {y(high)}" for px, _, high in spread] + [f"{x(px)} {y(low)}" for px, low, _ in spread[::-1]]
    return Markup('<path class="band" d="M{}Z"/>').format("L".join(outline)) + Markup("").join(bars)


def _places(curves: Sequence[Curve], x: Scale, y: Scale, across: str) -> list[Markup]:
    """Strips side by side; the one under the pointer shows a line and the values of all curves there."""
    marked = [curve for curve in curves if not curve.thin] or curves
    steps = thinned(sorted({point[0] for curve in marked for point in curve.finite}), MOST_PLACES)
    places = [x(step) for step in steps]
    edges = [LEFT, *((a + b) / 2 for a, b in pairwise(places)), WIDTH - RIGHT]
    found = [_near(curves, step) for step in steps]
    return [
        _place(step, place, edges[k : k + 2], lines, y, across)
        for k, (step, place, lines) in enumerate(zip(steps, places, found, strict=True))
    ]


def _near(curves: Sequence[Curve], step: float) -> list[tuple[Curve, Point]]:
    """The last point of each curve up to ``step``."""
    found = []
    for curve in curves:
        index = bisect.bisect_right([point[0] for point in curve.finite], step)
        if index:
            found.append((curve, curve.finite[index - 1]))
    return found


def _place(
    step: float, place: float, edges: Sequence[float], lines: Sequence[tuple[Curve, Point]], y: Scale, across: str
) -> Markup:
    left, right = edges
    texts = [f"{across} {step:,.0f}", *(f"{curve.name} {point_text(point)}" for curve, point in lines[:COLOURS])]
    width, height = 12 + 5.7 * max(map(len, texts)), 10 + 14 * len(texts)
    corner = min(max(place + 8, LEFT), WIDTH - width - 2) if place < WIDTH / 2 else max(2.0, place - 8 - width)
    box = Markup('<rect class="box" x="{:.1f}" y="{}" width="{:.1f}" height="{}" rx="4"/>').format(
        corner, TOP, width, height
    )
    rows = [
        Markup('<text class="{}" x="{:.1f}" y="{}">{}</text>').format(
            "head" if k == 0 else lines[k - 1][0].colour, corner + 6, TOP + 15 + 14 * k, text
        )
        for k, text in enumerate(texts)
    ]
    dots = [
        Markup('<circle class="{}" cx="{}" cy="{}" r="3.6"/>').format(curve.colour, place, y(point[1]))
        for curve, point in lines
    ]
    tip = Markup('<g class="tip"><line class="cross" x1="{0}" x2="{0}" y1="{1}" y2="{2}"/>{3}{4}{5}</g>').format(
        place, TOP, HEIGHT - BOTTOM, Markup("").join(dots), box, Markup("").join(rows)
    )
    strip = Markup('<rect class="strip" x="{:.2f}" y="{}" width="{:.2f}" height="{}"/>')
    return Markup('<g class="place">{}{}</g>').format(strip.format(left, TOP, right - left, HEIGHT - TOP - BOTTOM), tip)


def point_text(point: Point) -> str:
    """The value of a point with its spread, if it has one."""
    return number_text(point[1]) if point[2] is None else estimate_text(point[1], point[2])


def thinned(items: Sequence, most: int) -> list:
    """At most about ``most`` of the items, evenly spaced, and always the last one."""
    stride = math.ceil(len(items) / most) if items else 1
    return [item for k, item in enumerate(items) if (len(items) - 1 - k) % stride == 0]
