"""The rows of ``metrics.csv``: an interrupted run continues them from the step of its checkpoint."""

import csv
from pathlib import Path

import lightning as L
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from litdiffusion.runs.files import sync, write_rows

FILE = "metrics.csv"


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


class Rows(ExperimentWriter):
    """Appends to the existing rows; a new column rewrites the whole file atomically."""

    def __init__(self, log_dir: str):
        super().__init__(log_dir)
        self.path = Path(self.metrics_file_path)
        self.metrics_keys, _ = _read_rows(self.path)

    def save(self) -> None:
        if not self.metrics:
            return
        if self._record_new_keys() or not self.path.exists():
            write_rows(self.path, self.metrics_keys, [*_read_rows(self.path)[1], *self.metrics])
        else:
            with self.path.open("a", newline="") as file:
                csv.DictWriter(file, self.metrics_keys).writerows(self.metrics)
        self.metrics = []

    def sync(self) -> None:
        """Returns after all rows are on the disk."""
        if self.path.exists():
            sync(self.path)

    def _check_log_dir_exists(self) -> None:
        """Does nothing: Lightning's method would delete the existing rows."""


def sync_rows(trainer: L.Trainer) -> None:
    """Writes all rows to the disk, because a checkpoint relies on the rows before it."""
    for logger in trainer.loggers:
        if isinstance(logger, RowsLogger) and trainer.is_global_zero:
            logger.experiment.sync()


def keep_rows(folder: Path, steps: int) -> None:
    """Keeps only the rows of the first ``steps`` steps of the run in ``folder``; without such rows it deletes the file.

    Lightning counts steps from 0, so the row of step k holds the number k - 1. A row that a kill cut off is dropped.
    """
    path = folder / FILE
    if not path.exists():
        return
    keys, rows = _read_rows(path)
    kept = [row for row in rows if (row.get("step") or "").isdigit() and int(row["step"]) < steps]
    if kept:
        write_rows(path, keys, kept)
    else:
        path.unlink()


def _read_rows(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Column names and rows; both empty if the file does not exist."""
    if not path.exists():
        return [], []
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        rows = list(reader)
    return list(reader.fieldnames or []), rows
