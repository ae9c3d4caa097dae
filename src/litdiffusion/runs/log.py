"""The rows of ``metrics.csv``: an interrupted run continues them from the step of its checkpoint."""

import csv
import hashlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from litdiffusion.runs.files import named, set_aside, sync, write_rows
from litdiffusion.runs.rows import FILE, read_rows


class RowsLogger(CSVLogger):
    """Lightning's CSV logger, except that it keeps existing rows and writes every row to the file at once.

    Args:
        save_dir: the run's folder, which will hold ``metrics.csv`` and ``hparams.yaml``.
    """

    def __init__(self, save_dir: str | Path):
        super().__init__(save_dir, name="", version="", flush_logs_every_n_steps=1)

    @property
    def experiment(self) -> ExperimentWriter:
        if self._experiment is None and rank_zero_only.rank == 0:
            self._experiment = Rows(self.log_dir)
        return self._experiment if self._experiment is not None else super().experiment

    def log_hyperparams(self, params: Any = None) -> None:
        with named(Path(self.log_dir) / ExperimentWriter.NAME_HPARAMS_FILE):
            super().log_hyperparams(params)


class Rows(ExperimentWriter):
    """Appends to the existing rows; a new column rewrites the whole file atomically."""

    def __init__(self, log_dir: str):
        super().__init__(log_dir)
        self.path = Path(self.metrics_file_path)
        self.metrics_keys, rows = read_rows(self.path)
        self.tally = Tally(rows)

    def __reduce__(self) -> tuple[type["Rows"], tuple[str]]:
        return type(self), (self.log_dir,)  # a spawned process reads the file, which holds every row

    def save(self) -> None:
        if not self.metrics:
            return
        with named(self.path):
            if self._record_new_keys() or not self.path.exists():
                write_rows(self.path, self.metrics_keys, [*read_rows(self.path)[1], *self.metrics])
            else:
                with self.path.open("a", newline="") as file:
                    csv.DictWriter(file, self.metrics_keys).writerows(self.metrics)
        self.tally.add(self.metrics)
        self.metrics = []

    def sync(self) -> None:
        """Returns after all rows are on the disk."""
        if self.path.exists():
            sync(self.path)

    def _check_log_dir_exists(self) -> None:
        """Does nothing: Lightning's method would delete the existing rows."""


class Tally:
    """The number of rows and a checksum of their cells, which later columns do not change."""

    def __init__(self, rows: Iterable[Mapping[str, Any]] = ()):
        self.count, self._digest = 0, hashlib.sha256()
        self.add(rows)

    def add(self, rows: Iterable[Mapping[str, Any]]) -> None:
        for row in rows:
            # Like csv, which writes no cell for None.
            cells = sorted((str(key), str(value)) for key, value in row.items() if value not in (None, ""))
            self._digest.update(repr(cells).encode())
            self.count += 1

    def state(self) -> list[Any]:
        """``[count, checksum]`` so far."""
        return [self.count, self._digest.hexdigest()]


def sync_rows(trainer: L.Trainer) -> list[Any] | None:
    """Writes all rows to the disk, because a checkpoint relies on the rows before it.

    Returns the state of their `Tally`; None without a csv logger, and in other processes than the first.
    """
    for logger in trainer.loggers:
        if isinstance(logger, RowsLogger) and trainer.is_global_zero:
            logger.experiment.sync()
            return logger.experiment.tally.state()
    return None


def keep_rows(folder: Path, steps: int, tally: list[Any] | None = None) -> str | None:
    """Keeps only the rows of the first ``steps`` steps of the run in ``folder``; without such rows it deletes the file.

    Lightning counts steps from 0, so the row of step k holds the number k - 1. A row that a kill cut off is dropped.

    Args:
        folder: the run's folder.
        steps: the step of the checkpoint that the run continues from.
        tally: what the checkpoint knows of the rows before it, see `sync_rows`; None: nothing.

    Returns:
        A line that says what is missing if the file is not as the run left it. Such a file is kept under another name.
    """
    path, line = folder / FILE, None
    keys, rows = read_rows(path)
    kept = [row for row in rows if (row.get("step") or "").isdigit() and int(row["step"]) < steps]
    if tally is not None and Tally(rows[: tally[0]]).state() != tally:
        line = f"{path} is not as the run left it at step {steps} ({len(kept)} of {tally[0]} rows can be read)"
        line += f"; the old file is kept as {set_aside(path).name}" if os.path.lexists(path) else "; it was deleted"
    if kept:
        write_rows(path, keys, kept)
    else:
        path.unlink(missing_ok=True)
    return line
