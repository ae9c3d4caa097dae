"""The page of a sweep: its jobs as a sortable table, curves over one another, parallel coordinates, samples."""

from collections.abc import Iterator
from pathlib import Path

from litdiffusion.config.secrets import masked_text
from litdiffusion.reports.html.blocks import Block, Card, Cell, Chart, Folded, Grid, Page, Picture, Section, Table, Text
from litdiffusion.reports.html.charts import COLOURS, Curve, colour, line_chart
from litdiffusion.reports.html.images import Room
from litdiffusion.reports.html.parallel import Line, parallel_chart
from litdiffusion.reports.html.render import rendered
from litdiffusion.reports.numbers import estimate_text, number_text
from litdiffusion.reports.run import REPORT
from litdiffusion.reports.run.facts import STATES, WORDS, minutes_text
from litdiffusion.reports.run.reading import Reading, shown_path
from litdiffusion.runs.files import write_atomically
from litdiffusion.runs.metric_goals import SPREAD
from litdiffusion.sweeps.comparison import DONE, UNREADABLE, Comparison, Job, compare

MOST_PICTURES, PICTURE_BYTES = 24, 60_000
"""Largest number of jobs whose samples are shown, and of bytes for each."""
FURTHER = ("samples/wasserstein_over_floor", "quality/wasserstein_over_floor", "quality/frechet_over_floor", "val/loss")
"""Numbers that are shown beside the metric where jobs have them."""


def write_sweep_report(folder: Path) -> Path:
    """Writes ``report.html`` into a sweep's folder from the folders of its jobs; returns its path.

    Raises:
        UserError: the folder holds no jobs.
    """
    path = folder / REPORT
    write_atomically(path, rendered(sweep_page(compare(folder))))
    return path


def sweep_page(comparison: Comparison) -> Page:
    """The page of a sweep."""
    ranked = ranked_jobs(comparison)
    sections = [
        Section("jobs", "Jobs", [_table(comparison, ranked), *_errors(comparison)]),
        _curves(comparison, ranked),
        _coordinates(comparison),
        _samples(comparison, ranked, Room()),
    ]
    done = sum(job.status in DONE for job in comparison.jobs)
    return Page(
        kind="Comparison of a sweep",
        title=comparison.folder.absolute().name,
        status=f"{done} of {len(comparison.jobs)} jobs done",
        state="open" if comparison.unfinished else "good",
        lead=list(_lead(comparison)),
        cards=_cards(comparison, done),
        sections=[section for section in sections if section is not None],
        footer=f"Made from the jobs' folders; litdiffusion report {shown_path(comparison.folder)} writes it anew.",
    )


def ranked_jobs(comparison: Comparison) -> list[Job]:
    """The jobs with a metric, best first, then the others."""
    valued = [job for job in comparison.jobs if job.value is not None]
    ranked = sorted(valued, key=lambda job: job.value, reverse=comparison.rising)
    return [*ranked, *(job for job in comparison.jobs if job.value is None)]


def _lead(comparison: Comparison) -> Iterator[str]:
    varied = ", ".join(comparison.varied)
    yield f"{len(comparison.jobs)} jobs that differ in {varied}." if varied else f"{len(comparison.jobs)} jobs."
    side = "larger" if comparison.rising else "smaller"
    yield f"They are compared by {comparison.metric}; {side} is better."


def _cards(comparison: Comparison, done: int) -> list[Card]:
    best, cards = comparison.best, []
    if best is not None:
        cards.append(
            Card(f"best {comparison.metric}", _value(best, comparison.metric), comparison.differing_overrides(best))
        )
    wrong = len(comparison.jobs) - done
    minutes = sum(job.record.minutes for job in comparison.jobs)
    cards.append(
        Card("jobs done", f"{done} of {len(comparison.jobs)}", f"{wrong} not done" if wrong else "all of them")
    )
    cards.append(Card("time of all jobs", minutes_text(minutes), "summed over the jobs"))
    values = [job.value for job in comparison.jobs if job.value is not None]
    if len(values) > 1:
        cards.append(Card("range of the metric", f"{number_text(min(values))} to {number_text(max(values))}"))
    return cards


def _table(comparison: Comparison, ranked: list[Job]) -> Table:
    numbers = _shown_numbers(comparison)
    columns = ["job", *comparison.varied, "status", *numbers, "time", "steps"]
    rows = [_row(comparison, job, numbers) for job in ranked]
    spread = " ±: one standard deviation of the measurement." if any("±" in c.text for row in rows for c in row) else ""
    return Table(columns, rows, f"Best first by {comparison.metric}.{spread}", sortable=True)


def _row(comparison: Comparison, job: Job, numbers: list[str]) -> list[Cell]:
    top = "top" if job is comparison.best else ""
    name = f"{ranked_name(comparison, job)}{' (best)' if top else ''}"
    link = f"{job.name}/{REPORT}" if (comparison.folder / job.name / REPORT).is_file() else ""
    state = STATES.get(job.status, "bad" if job.status == UNREADABLE else "open")
    return [
        Cell(name, style=top, link=link),
        *(Cell(job.overrides.get(key, ""), _number(job.overrides.get(key))) for key in comparison.varied),
        Cell(WORDS.get(job.status, job.status).partition(";")[0], style=state),
        *(_metric_cell(job, name, top if name == comparison.metric else "") for name in numbers),
        Cell(minutes_text(job.record.minutes), job.record.minutes),
        Cell(f"{job.record.step:,}", job.record.step),
    ]


def ranked_name(comparison: Comparison, job: Job) -> str:
    """What a job is called on the page: its number in the sweep's order."""
    return f"job {comparison.jobs.index(job) + 1}"


def _metric_cell(job: Job, name: str, style: str) -> Cell:
    value = job.record.metrics.get(name)
    return Cell("") if value is None else Cell(_value(job, name), value, style)


def _value(job: Job, name: str) -> str:
    value, spread = job.record.metrics[name], job.record.metrics.get(name + SPREAD)
    return number_text(value) if spread is None else estimate_text(value, spread)


def _shown_numbers(comparison: Comparison) -> list[str]:
    """The metric, and the further numbers that some job has."""
    known = {name for job in comparison.jobs for name in job.record.metrics}
    return [comparison.metric, *(name for name in FURTHER if name in known and name != comparison.metric)]


def _number(text: str | None) -> float | None:
    try:
        return float(text or "")
    except ValueError:
        return None


def _errors(comparison: Comparison) -> Iterator[Block]:
    """What went wrong, in words; jobs with the same error share a row."""
    wrong: dict[tuple[str, str], list[str]] = {}
    for job in comparison.unfinished:
        if job.record.error:
            words = WORDS.get(job.status, job.status).partition(";")[0]
            wrong.setdefault((words, masked_text(job.record.error)), []).append(ranked_name(comparison, job))
    if wrong:
        rows = [
            [Cell(", ".join(jobs), style="words"), Cell(words, style="bad"), Cell(error, style="words")]
            for (words, error), jobs in wrong.items()
        ]
        yield Table(
            ["not done", "status", "what happened"],
            rows,
            "Jobs that did not end well; error.txt in a job's folder has the whole error.",
        )


def _curves(comparison: Comparison, ranked: list[Job]) -> Section | None:
    """A chart for the loss and for the metric, with a curve for each job; the best jobs have colours of their own."""
    readings = [
        (job, Reading(comparison.folder / job.name, job.record, job.status)) for job in ranked if job.record.config
    ]
    names = list(dict.fromkeys((comparison.metric, "val/loss", *FURTHER)))
    charts = [chart for name in names if (chart := _overlay(comparison, readings, name)) is not None]
    if not charts:
        charts = [chart for chart in [_overlay(comparison, readings, "train/loss")] if chart is not None]
    return Section("curves", "Curves over one another", [Grid(charts)]) if charts else None


def _overlay(comparison: Comparison, readings: list[tuple[Job, Reading]], name: str) -> Chart | None:
    curves = [
        Curve(
            f"{ranked_name(comparison, job)}: {comparison.differing_overrides(job)}",
            [(step, value, None) for step, value in reading.columns.get(name, [])],
            colour(index),
        )
        for index, (job, reading) in enumerate(readings)
    ]
    shown = [curve for curve in curves if curve.finite]
    if all(len(curve.finite) < 2 for curve in shown):
        return None  # a number of the end alone stands in the table
    more = f" The {COLOURS} best jobs have colours." if len(shown) > COLOURS else ""
    level = (1.0, "1: like data") if name.endswith("_over_floor") else None
    chart = line_chart(
        shown[::-1], name, f"Every job at its validations, the best first in the legend.{more}", level=level
    )
    if chart is None:
        return None
    legend = [pair for pair in chart.legend[::-1] if pair[1] != "rest"]
    return Chart(chart.svg, chart.title, chart.caption, legend)


def _coordinates(comparison: Comparison) -> Section | None:
    """One line per complete job through what was varied, and its metric at the right."""
    jobs = [job for job in comparison.jobs if job.value is not None]
    keys = [key for key in comparison.varied if len({job.overrides.get(key) for job in jobs}) > 1]
    if len(jobs) < 2 or not keys:
        return None
    lines = [
        Line(
            f"{ranked_name(comparison, job)}: {comparison.differing_overrides(job)}",
            [job.overrides.get(key, "–") for key in keys], job.value, job is comparison.best,
        )
        for job in jobs
    ]  # fmt: skip
    left = len(comparison.jobs) - len(jobs)
    missing = f" {left} jobs without a result are left out." if left else ""
    side = "higher" if comparison.rising else "lower"
    caption = (
        f"A line is a job; the best one is thick. Good lines end {side} on the last axis: what do they share?{missing}"
    )
    chart = parallel_chart(keys, comparison.metric, lines, caption)
    return Section("coordinates", "What was varied, and what came of it", [chart])


def _samples(comparison: Comparison, ranked: list[Job], room: Room) -> Section | None:
    """The samples of the jobs side by side, best first."""
    shown, more = [], []
    for job in ranked[:MOST_PICTURES]:
        path = comparison.folder / job.name / "pictures" / "samples.png"
        if path.is_file() and (image := room.embed(path, width=700, limit=PICTURE_BYTES)):
            value = f"{comparison.metric} {_value(job, comparison.metric)}" if job.value is not None else job.status
            title = f"{ranked_name(comparison, job)}: {comparison.differing_overrides(job)}"
            (shown if len(shown) < 12 else more).append(Picture(image, title, value, f"Samples of {title}", small=True))
    if not shown:
        return None
    blocks: list[Block] = [Text("Samples at the end of each job, best first."), Grid(shown)]
    return Section("samples", "Samples side by side", blocks + ([Folded("Further jobs", [Grid(more)])] if more else []))
