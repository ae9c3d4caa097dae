"""The rows of ``metrics.csv``, which an interrupted run goes on writing where its checkpoint says."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import lightning as L
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from litdiffusion.runs.files import sync, write_atomically

FILE = "metrics.csv"


class RowsLogger(CSVLogger):
    """Lightning's CSV logger, but that it never deletes the rows it finds and every row is on the disk at once.

    Args:
        save_dir: folder of the run, which ``metrics.csv`` and ``hparams.yaml`` are written to.
    """

    def __init__(self, save_dir: str | Path):
        super().__init__(save_dir, name="", version="", flush_logs_every_n_steps=1)

    @property
    def experiment(self) -> ExperimentWriter:
        if self._experiment is None and rank_zero_only.rank == 0:
            self._experiment = Rows(self.log_dir)
        return self._experiment if self._experiment is not None else super().experiment


class Rows(ExperimentWriter):
    """Appends to the rows that are there; a new column rewrites the file as a whole or not at all."""

    def __init__(self, log_dir: str):
        super().__init__(log_dir)
        self.path = Path(self.metrics_file_path)
        self.metrics_keys, _ = _read_rows(self.path)

    def save(self) -> None:
        if not self.metrics:
            return
        if self._record_new_keys() or not self.path.exists():
            _write_rows(self.path, self.metrics_keys, [*_read_rows(self.path)[1], *self.metrics])
        else:
            with self.path.open("a", newline="") as file:
                csv.DictWriter(file, self.metrics_keys).writerows(self.metrics)
        self.metrics = []

    def sync(self) -> None:
        """Returns when all rows are safe from a power cut."""
        if self.path.exists():
            sync(self.path)

    def _check_log_dir_exists(self) -> None:
        """Lightning's would delete the rows."""


def sync_rows(trainer: L.Trainer) -> None:
    """Makes sure that the rows so far are on the disk, as a checkpoint that counts on them needs."""
    for logger in trainer.loggers:
        if isinstance(logger, RowsLogger) and trainer.is_global_zero:
            logger.experiment.sync()


def keep_rows(folder: Path, steps: int) -> None:
    """Leaves the rows of the first ``steps`` steps of the run in ``folder``, as they were written; none: no file.

    Lightning counts steps from 0: the row of step k says k - 1. A row that a kill cut off is left out.
    """
    path = folder / FILE
    if not path.exists():
        return
    keys, rows = _read_rows(path)
    kept = [row for row in rows if (row.get("step") or "").isdigit() and int(row["step"]) < steps]
    if kept:
        _write_rows(path, keys, kept)
    else:
        path.unlink()


def _read_rows(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Columns and rows; nothing of a file that is not there."""
    if not path.exists():
        return [], []
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        rows = list(reader)
    return list(reader.fieldnames or []), rows


def _write_rows(path: Path, keys: Sequence[str], rows: Sequence[dict]) -> None:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, keys)
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path, text.getvalue().encode())
