"""One's own vectors: the rows of a table."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from litdiffusion.data.base import DataModule, check_at_least, hold_out
from litdiffusion.data.batch import Batch
from litdiffusion.data.columns import Table, check_columns, classes, numbers, read_table
from litdiffusion.data.conditions import CLASS
from litdiffusion.data.loaders import take
from litdiffusion.errors import UserError

SHARE, MOST = 10, 2000
"""Default validation items: one in so many rows, and at most so many."""
COARSE = 1e-3
"""Largest rounding error of float32, in units of a column's deviation, that is not refused."""
SHOWN = 8
"""How many columns the line about the table names."""


class TableData(DataModule):
    """The rows of a table as vectors: .csv, .npy, .npz, or .parquet (with pyarrow), see `read_table`.

    The vectors are in the table's own units; see `litdiffusion.codecs.Standardise`. Rows are held out for validation.

    Args:
        path: the file.
        columns: names of the columns that are the coordinates, in this order; None: all but ``label_column`` and
            ``conditions``.
        label_column: name of the column of class labels, numbers or text; None: no classes.
        conditions: names of columns of numbers that are conditions and not coordinates; None: none.
        batch_size: rows per step and process.
        val_size: rows held out for validation; None: a tenth, at most 2000.
        seed: seed of the order of the training rows.

    Raises:
        UserError: a file that cannot be read, an unknown column, or a value that is no finite number; the message names
            file, row and column.
    """

    def __init__(
        self,
        *,
        path: str | Path,
        columns: Sequence[str | int] | None = None,
        label_column: str | int | None = None,
        conditions: Sequence[str | int] | None = None,
        batch_size: int,
        val_size: int | None = None,
        seed: int,
    ) -> None:
        super().__init__(batch_size=batch_size, val_size=1 if val_size is None else val_size, seed=seed)
        self.path, self.default_val_size = Path(path).expanduser(), val_size is None
        self.columns = None if columns is None else [str(name) for name in columns]
        self.label_column = None if label_column is None else str(label_column)
        self.given_conditions = [str(name) for name in conditions or ()]
        taken = [*(self.columns or ()), *([] if self.label_column is None else [self.label_column]), CLASS]
        if set(self.given_conditions) & set(taken) or len(set(self.given_conditions)) < len(self.given_conditions):
            raise UserError(
                f"data.conditions={self.given_conditions}: name each column once, none of data.columns or "
                f"data.label_column, and none called {CLASS}"
            )
        if self.columns is not None:
            check_at_least("columns", len(self.columns), 1)
        if self.columns and (self.label_column in self.columns or len(set(self.columns)) < len(self.columns)):
            raise UserError(f"data.columns={self.columns}: name each column once, and not data.label_column")

    @property
    def name(self) -> str:
        """Name of the file in lower case, without its ending."""
        return self.path.stem.lower()

    @property
    def shape(self) -> tuple[int, ...]:
        """(number of coordinates,); reads the table."""
        self.load()
        return tuple(self.train.data.shape[1:])

    @property
    def num_classes(self) -> int:
        """Number of classes; reads the table."""
        self.load()
        return len(self.class_names)

    def read(self) -> tuple[Batch, Batch]:
        """Training and validation rows, float32 (N, d), with class labels if there is a ``label_column``."""
        table = read_table(self.path)
        label = [] if self.label_column is None else [self.label_column]
        others = [*label, *self.given_conditions]
        names = self.columns or [name for name in table.columns if name not in others]
        check_columns(table, self.path, [*names, *others])
        if not names:
            raise UserError(f"{self.path} has no column beside {self._others()}; give one of numbers")
        values = np.concatenate([numbers(table, self.path, name) for name in names], axis=1)
        data = self._in_float32(values, names)
        class_label = None
        if label:
            found, self.class_names = classes(table, self.path, *label)
            class_label = torch.from_numpy(found)
        conditions = self._conditions(table)
        if self.default_val_size:
            self.val_size = max(1, min(MOST, len(data) // SHARE))
        self.found, self._names_from = {"columns": names}, table.names_from
        train, val = hold_out(len(data), self.val_size)
        everything = Batch(data, class_label, conditions)
        return take(everything, train), take(everything, val)

    def _others(self) -> str:
        """The settings that name columns which are no coordinates."""
        label = [] if self.label_column is None else [f"data.label_column={self.label_column}"]
        named = [f"data.conditions=[{','.join(self.given_conditions)}]"] if self.given_conditions else []
        return " and ".join([*label, *named])

    def _conditions(self, table: Table) -> torch.Tensor | None:
        """The conditions (N, D) in float32; None without any."""
        names = self.given_conditions
        columns = [numbers(table, self.path, name) for name in names]
        for name, column in zip(names, columns, strict=True):
            if column.shape[1] != 1:
                raise UserError(f"{self.path}, column {name}: a condition is one number for each row, not several")
        return self._in_float32(np.concatenate(columns, axis=1), names) if names else None

    def notes(self) -> list[str]:
        """The rows and coordinates, and what `DataModule.notes` says of the classes."""
        rows, names = len(self.train.data) + len(self.val.data), self.found["columns"]
        shown = ", ".join(names[:SHOWN]) + (f", ... ({len(names)} columns)" if len(names) > SHOWN else "")
        label = "" if self.label_column is None else f", classes in {self.label_column}"
        label += f", conditions {', '.join(self.given_conditions)}" if self.given_conditions else ""
        names_from = f" ({self._names_from})" if self._names_from else ""
        return [f"{self.path.name}: {rows} rows, coordinates {shown}{label}{names_from}", *super().notes()]

    def _in_float32(self, values: np.ndarray, names: Sequence[str]) -> torch.Tensor:
        """The values (N, d) in float32, which has seven digits; refuses them if these do not tell rows apart."""
        with np.errstate(over="ignore", invalid="ignore"):
            rounded = values.astype(np.float32)
            error, std = np.abs(values - rounded).max(axis=0), values.std(axis=0)
        varies = values.min(axis=0) < values.max(axis=0)
        for i in np.flatnonzero(~np.isfinite(error) | (varies & ~(error <= COARSE * std))):
            name = names[i] if len(names) == values.shape[1] else str(i)
            raise UserError(
                f"{self.path}, column {name}: float32 cannot tell its values apart, about {values[0, i]:.10g} with "
                f"deviation {std[i]:.3g}; subtract a constant from them, or divide them by one"
            )
        return torch.from_numpy(rounded)
