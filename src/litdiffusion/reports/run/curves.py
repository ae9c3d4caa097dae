"""The charts of a run: loss, loss by quartile of time, quality over the floor, shares of the time."""

import re
from collections.abc import Iterator

from litdiffusion.reports.html.blocks import Bars, Block, Cell, Folded, Grid, Section, Table, Text
from litdiffusion.reports.html.charts import Curve, colour, line_chart
from litdiffusion.reports.numbers import number_text
from litdiffusion.reports.run.reading import OVER_FLOOR, Reading
from litdiffusion.runs.metric_goals import SPREAD

QUARTILE = re.compile(r"(train|val)/loss_t_(\d+)_(\d+)")
SECTIONS = {
    "step": "training steps",
    "data": "waiting for data",
    "validation": "validation",
    "drawing": "pictures",
    "quality": "live quality",
    "likelihood": "live likelihood",
}
"""Name in ``time/..._percent`` -> words."""
MOST_ROWS = 200
"""Largest number of validations in the table of numbers."""


def curves_section(run: Reading) -> Section:
    """The charts that a run has numbers for."""
    charts = [chart for chart in (_loss(run), _quartiles(run), _quality(run), _likelihood(run)) if chart is not None]
    blocks: list[Block] = [Grid(charts)] if charts else []
    if not run.columns:
        blocks.append(Text("This run has no metrics.csv (logger=none, or it ended before its first row): no curves."))
    blocks += [bars] if (bars := _time(run)) else []
    blocks += [Folded("More curves", [Grid(more)])] if (more := list(_others(run))) else []
    blocks += [Folded("The numbers of all validations", [table])] if (table := _table(run)) else []
    return Section("curves", "Curves", blocks)


def _curve(run: Reading, name: str, title: str, index: int, thin: bool = False) -> Curve:
    """The curve of a column, with its spread where the log has one."""
    spreads = dict(run.columns.get(name + SPREAD, []))
    points = [(step, value, spreads.get(step)) for step, value in run.columns.get(name, [])]
    return Curve(title, points, colour(index), thin)


def _loss(run: Reading) -> Block | None:
    curves = [_curve(run, "val/loss", "validation", 0), _curve(run, "train/loss", "training", 1, thin=True)]
    return line_chart(
        curves,
        "Loss",
        "Training loss is the mean of the batches since the row before, of the weights as they are trained; validation "
        "loss is that of the averaged weights. Good: both fall and then lie flat, and validation does not rise again. "
        "The two may be weighted differently, so their distance says little. The loss says little about the samples.",
    )


def _quartiles(run: Reading) -> Block | None:
    """By quartile of t at validation; without any, of the training."""
    names = [name for name in run.columns if QUARTILE.fullmatch(name)]
    part = "val" if any(name.startswith("val/") for name in names) else "train"
    found = [match for name in names if (match := QUARTILE.fullmatch(name)) and match[1] == part]
    curves = [
        _curve(run, match[0], f"t from {match[2]} to {match[3]} %", k)
        for k, match in enumerate(sorted(found, key=lambda match: int(match[2])))
    ]
    return line_chart(
        curves,
        f"Loss by quartile of t, {'validation' if part == 'val' else 'training'}",
        "The same loss, apart for little noise (t near 0) and much noise (t near 1). A quartile that still falls when "
        "the others lie flat is the one that more training or another weighting helps.",
    )


def _quality(run: Reading) -> Block | None:
    headline = run.headline("quality")
    names = [name for name in run.columns if name.startswith("quality/") and name.endswith(OVER_FLOOR)]
    names.sort(key=lambda name: name != headline)
    curves = [_curve(run, name, _words(name), k, thin=name != headline) for k, name in enumerate(names)]
    if (end := run.headline("samples")) in run.columns:
        curves.append(_curve(run, end, f"{_words(end)}, at the end", 4))
    return line_chart(
        curves,
        "Quality of samples, over the noise floor",
        "Distance of a few samples from data at each validation, divided by that of two draws of data from each other. "
        "Good: 1, where samples cannot be told from data by this number. Bars and band: one standard deviation of the "
        "main number. At the end more samples are drawn.",
        level=(1.0, "1: like data"),
    )


def _likelihood(run: Reading) -> Block | None:
    names = [name for name in run.columns if name.startswith("likelihood/")]
    curves = [_curve(run, name, _words(name), k) for k, name in enumerate(names)]
    return line_chart(
        curves,
        "Likelihood of held-out items",
        "Upper bound of −log p for the same few validation items. Good: low and flat. Only differences between runs on "
        "the same data mean something.",
    )


def _time(run: Reading) -> Bars | None:
    shares = {name: run.numbers.get(f"time/{name}_percent") for name in SECTIONS}
    rows = [(SECTIONS[name], share) for name, share in shares.items() if share is not None]
    if not rows:
        return None
    rest = 100 - sum(share for _, share in rows)
    rows += [("other", rest)] if rest >= 0.05 else []
    speed = run.numbers.get("time/samples_per_second")
    words = f" At the last row {number_text(speed)} items per second of training." if speed is not None else ""
    return Bars(
        "Where the time went",
        rows,
        "Shares of the time since training began, at the last row of the log. Good: most of it in training steps; "
        f"waiting for data near zero.{words}",
    )


def _others(run: Reading) -> Iterator[Block]:
    """A chart for each further number that was logged more than once."""
    shown = ("val/loss", "train/loss", "quality/", "likelihood/", "time/")
    for name, series in run.columns.items():
        if not name.startswith(shown) and len(series) > 1 and not name.endswith(SPREAD):
            chart = line_chart([_curve(run, name, name, 1)], name, "")
            if chart is not None:
                yield chart


def _table(run: Reading) -> Table | None:
    """A row for each validation, with every digit that the log has."""
    prefixes = ("val/", "quality/", "likelihood/")
    columns = {name: dict(series) for name, series in run.columns.items() if name.startswith(prefixes)}
    steps = sorted({step for series in columns.values() for step in series})[-MOST_ROWS:]
    if not steps:
        return None
    rows = [
        [Cell(f"{step:.0f}", step)]
        + [Cell(f"{series[step]:.6g}", series[step]) if step in series else Cell("") for series in columns.values()]
        for step in steps
    ]
    return Table(["steps", *columns], rows, "As logged in metrics.csv, to six digits.")


def _words(name: str) -> str:
    return name.partition("/")[2].removesuffix(OVER_FLOOR).replace("_", " ")
