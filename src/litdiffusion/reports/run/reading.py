"""What the files of a run's folder say: its record, and the columns of its log."""

import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from litdiffusion.config.secrets import masked
from litdiffusion.errors import UserError
from litdiffusion.runs.metric_goals import SPREAD
from litdiffusion.runs.record import RunRecord, read_record, status_of
from litdiffusion.runs.rows import rows_of

Series = list[tuple[float, float]]
OVER_FLOOR = "_over_floor"


@dataclass(frozen=True)
class Reading:
    """A run as its folder tells of it."""

    folder: Path
    record: RunRecord
    status: str

    @cached_property
    def config(self) -> dict[str, Any]:
        """The config without secrets, also those of a record that something else has written."""
        return masked(self.record.config)

    @cached_property
    def columns(self) -> dict[str, Series]:
        """Column of ``metrics.csv`` -> (steps that were done, value); Lightning counts steps from 0."""
        found: dict[str, Series] = {}
        for row in rows_of(self.folder):
            step = _number(row.get("step", ""))
            for name, text in row.items():
                if step is not None and name not in ("step", "epoch") and (value := _number(text)) is not None:
                    found.setdefault(name, []).append((step + 1, value))
        return found

    @cached_property
    def numbers(self) -> dict[str, float]:
        """The last value of every number: those at the end of a complete run, else of the log."""
        last = {name: series[-1][1] for name, series in self.columns.items()}
        return last | self.record.metrics

    @property
    def metric(self) -> str:
        """Name of the number that selects the best checkpoint and the best job."""
        return self.config.get("metric", "val/loss")

    @property
    def name(self) -> str:
        """The run's name: that of its folder, which a user has typed or can find."""
        return self.folder.absolute().name

    @property
    def place(self) -> str:
        """The folder as it can be typed, see `shown_path`."""
        return shown_path(self.folder)

    def headline(self, section: str) -> str | None:
        """The name of a section's main number over the floor: the one that has a spread, else the first."""
        names = [name for name in self.numbers if name.startswith(f"{section}/") and name.endswith(OVER_FLOOR)]
        return next((name for name in names if name + SPREAD in self.numbers), next(iter(names), None))

    def part(self, group: str) -> str:
        """The class that a group of the config names, without its module; empty if there is none."""
        node = self.config.get(group)
        target = node.get("_target_", "") if isinstance(node, dict) else ""
        return str(target).rpartition(".")[2]


def read_run(folder: Path) -> Reading:
    """Reads the run in a folder.

    Raises:
        UserError: the folder holds no run, or its record is damaged.
    """
    record = read_record(folder)
    if record is None:
        raise UserError(f"{folder} holds no run: it has no run.json")
    return Reading(folder, record, status_of(folder, record))


def shown_path(path: Path) -> str:
    """A path from the current folder on; pages are given to others, whom the folders above do not concern."""
    whole, here = path.absolute(), Path.cwd()
    return str(whole.relative_to(here) if whole.is_relative_to(here) else path)


def _number(text: str) -> float | None:
    """The number in a cell of the log; None for an empty cell or a word. NaN and inf are numbers."""
    try:
        return float(text) if text else None
    except ValueError:
        return None


def finite(series: Series) -> Series:
    """The points with finite values."""
    return [point for point in series if math.isfinite(point[1])]
