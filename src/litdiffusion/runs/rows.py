"""The rows of a run's ``metrics.csv``. Imports neither torch nor Lightning."""

import contextlib
import csv
from pathlib import Path

FILE = "metrics.csv"


def rows_of(folder: Path) -> list[dict[str, str]]:
    """The rows of the run in ``folder``, of all attempts; an empty cell is an empty string."""
    return read_rows(folder / FILE)[1]


def read_rows(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Column names and rows, as far as the file can be read; both empty if it does not exist."""
    keys: list[str] = []
    rows: list[dict[str, str]] = []
    if path.is_file():
        with path.open(newline="", errors="replace") as file, contextlib.suppress(csv.Error):
            reader = csv.DictReader(file)
            keys = [key for key in reader.fieldnames or [] if key]
            rows.extend({key: cells.get(key) or "" for key in keys} for cells in reader)
    return keys, rows
