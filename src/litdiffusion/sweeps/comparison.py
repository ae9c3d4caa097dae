"""Compares the jobs of a sweep by their folders: a table for the terminal, a csv file, a picture."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from litdiffusion.config.job_names import relevant_values
from litdiffusion.errors import UserError
from litdiffusion.runs.files import write_picture
from litdiffusion.runs.record import RunRecord, read_record, status_of

DONE = ("complete", "pruned")
UNREADABLE = "unreadable"
CSV, PICTURE = "comparison.csv", "comparison.png"
Cell = str | int | float | None


@dataclass(frozen=True)
class Job:
    """A job: the name of its folder, the content of its ``run.json``, and its status."""

    name: str
    record: RunRecord
    status: str

    @property
    def overrides(self) -> dict[str, str]:
        return relevant_values(self.record.overrides)

    @property
    def metric(self) -> str:
        """Name of the metric that compares the jobs."""
        return self.record.config.get("metric", "val/loss")

    @property
    def value(self) -> float | None:
        """The metric of a complete job; None if the job is not complete or the value is not finite."""
        value = self.record.metrics.get(self.metric) if self.status == "complete" else None
        return None if value is None or not math.isfinite(value) else value


@dataclass(frozen=True)
class Comparison:
    """All jobs in a sweep's folder, ordered by the overrides in which they differ; unreadable ones last."""

    folder: Path
    jobs: Sequence[Job]

    @property
    def readable(self) -> list[Job]:
        """The jobs whose record can be read."""
        return [job for job in self.jobs if job.status != UNREADABLE]

    @property
    def metric(self) -> str:
        """Name of the metric that compares the jobs."""
        return (self.readable or self.jobs)[0].metric

    @property
    def rising(self) -> bool:
        """Whether a larger metric is better."""
        return any(job.record.better == "max" for job in self.jobs)

    @property
    def varied(self) -> list[str]:
        """Keys of the overrides in which the readable jobs differ."""
        keys = list(dict.fromkeys(key for job in self.readable for key in job.overrides))
        return [key for key in keys if len({job.overrides.get(key) for job in self.readable}) > 1]

    @property
    def best(self) -> Job | None:
        """The complete job with the best metric."""
        valued = [job for job in self.jobs if job.value is not None]
        return (max if self.rising else min)(valued, key=lambda job: job.value, default=None)

    @property
    def unfinished(self) -> list[Job]:
        """Jobs that failed, were stopped or interrupted, are still running, or cannot be read."""
        return [job for job in self.jobs if job.status not in DONE]

    def differing_overrides(self, job: Job) -> str:
        """The overrides in which ``job`` differs from the other jobs."""
        return " ".join(f"{key}={job.overrides[key]}" for key in self.varied if key in job.overrides) or job.name

    def rows(self) -> list[dict[str, Cell]]:
        """One row per job: overrides, status, metrics (the compared one first), minutes, attempts, error."""
        names = sorted({name for job in self.jobs for name in job.record.metrics})
        keys = list(dict.fromkeys(key for job in self.jobs for key in job.overrides))
        return [_csv_row(job, self.metric, keys, names) for job in self.jobs]


def compare(folder: Path) -> Comparison:
    """Reads every job of the sweep in ``folder``.

    Raises:
        UserError: the folder holds no jobs.
    """
    jobs = [_read_job(path.parent) for path in sorted(folder.glob("*/run.json"))]
    if not jobs:
        raise UserError(
            f"{folder} holds no jobs of a sweep; give a folder outputs/sweeps/NAME that -m sweep=NAME wrote"
        )
    varied = Comparison(folder, jobs).varied
    ordered = sorted(jobs, key=lambda job: [_sort_key(job.overrides.get(key)) for key in varied])
    return Comparison(folder, sorted(ordered, key=lambda job: job.status == UNREADABLE))


def _read_job(folder: Path) -> Job:
    """The job in a folder; one whose ``run.json`` is damaged is `UNREADABLE` and has no overrides."""
    try:
        record = read_record(folder)
    except UserError as error:
        return Job(folder.name, RunRecord("failed", {}, error=str(error)), UNREADABLE)
    return Job(folder.name, record, status_of(folder, record))


def text(comparison: Comparison) -> str:
    """The table as text, with the best job marked; errors of unfinished jobs follow below."""
    from litdiffusion.reports.table import text_table

    rows = [_terminal_row(comparison, job) for job in comparison.jobs]
    lines = [text_table(rows, list(rows[0]))]
    wrong = [job for job in comparison.unfinished if job.record.error]
    lines += [f"{job.status}: {comparison.differing_overrides(job)}: {job.record.error}" for job in wrong]
    return "\n".join(lines)


def write_files(comparison: Comparison) -> list[Path]:
    """Writes ``comparison.csv`` and ``comparison.png`` into the sweep's folder; returns their paths."""
    from litdiffusion.plots.jobs import Bar, jobs_picture
    from litdiffusion.reports.table import write_csv

    csv, picture = comparison.folder / CSV, comparison.folder / PICTURE
    write_csv(csv, comparison.rows())
    bars = [Bar(comparison.differing_overrides(job), job.value, job.status) for job in comparison.jobs]
    write_picture(picture, jobs_picture(bars, comparison.metric, comparison.rising))
    return [csv, picture]


def _sort_key(value: str | None) -> tuple[float, str]:
    """Sorts numbers first, then words, then jobs without the key."""
    if value is None:
        return math.inf, "~"
    try:
        return float(value), ""
    except ValueError:
        return math.inf, value


def _csv_row(job: Job, metric: str, keys: list[str], names: list[str]) -> dict[str, Cell]:
    record = job.record
    first = [metric, *(name for name in names if name != metric)]
    return {
        "job": job.name,
        **{key: job.overrides.get(key) for key in keys},
        "status": job.status,
        **{name: record.metrics.get(name) for name in first},
        "minutes": round(record.minutes, 3),
        "step": record.step,
        "attempts": record.attempts,
        "error": record.error,
    }


def _terminal_row(comparison: Comparison, job: Job) -> dict[str, Cell]:
    """The columns that fit on a terminal."""
    shown = {key: job.overrides.get(key) for key in comparison.varied} or {"job": job.name}
    if job.status == UNREADABLE:
        shown = {next(iter(shown)): job.name}
    mark = "best" if job is comparison.best else ""
    return {
        **shown,
        "status": job.status,
        comparison.metric: job.value,
        "": mark,
        "minutes": float(f"{job.record.minutes:.1f}"),
    }
