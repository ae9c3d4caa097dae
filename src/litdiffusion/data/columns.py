"""Reads the columns of a table: .csv, .npy, .npz, .parquet. Errors name file, row and column."""

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from litdiffusion.errors import UserError, first_line, nearest

Columns = Mapping[str, np.ndarray]
"""Name -> values (N,), or (N, k) for an array of a .npz file with several columns."""


MISSING = frozenset(("", "nan", "none", "null", "na", "n/a", "<na>"))
"""What programs write for a missing label, in lower case."""


class Table(NamedTuple):
    """The columns of a file by name, the line of the file in which each row stands (None: it has no lines).

    ``names_from`` says where the names of the columns come from, for the line that says what was read.
    """

    columns: Columns
    lines: Sequence[int] | None = None
    names_from: str = ""

    def row(self, index: int) -> str:
        """The place of a row in messages, counted from 1."""
        return f"row {index + 1}" + ("" if self.lines is None else f" (line {self.lines[index]})")


def read_table(path: Path) -> Table:
    """All columns of the file, by its ending; text and numbers as they are.

    Columns without a name are called 0, 1, 2, ...: those of an array, and of a .csv file that begins with a number.

    Raises:
        UserError: no such file, another ending, a file that cannot be read, or rows of unequal length.
    """
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise UserError(
            f"data.path={path}: a table is a file that ends in {', '.join(READERS)}; save it as one of them"
        )
    if not path.is_file():
        raise UserError(f"data.path={path}: no such file; give the path of a table ({', '.join(READERS)})")
    try:
        table = reader(path)
    except UserError:
        raise
    except (OSError, ValueError, EOFError, csv.Error, KeyError) as error:
        raise UserError(f"{path} cannot be read ({first_line(error)}); save it again") from error
    if not table.columns or not max(map(len, table.columns.values())):
        raise UserError(f"{path} has no rows; give a table with at least 2")
    return table


def check_columns(table: Table, path: Path, names: Sequence[str]) -> None:
    """Raises a `UserError` for a name that the table does not have, and for columns of unequal length or no rows."""
    known = list(table.columns)
    for name in names:
        if name not in known:
            raise UserError(f"{path} has no column {name}{nearest(name, known)} (it has {', '.join(known)})")
        if not name:
            index = known.index(name) + 1
            raise UserError(
                f"{path}: column {index} has no name, so it may hold row numbers; name the coordinates by "
                f"data.columns=[{','.join(filter(None, known))}], or give the column a name"
            )
    lengths = {name: len(table.columns[name]) for name in names}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise UserError(f"{path}: columns of unequal length ({listed}); choose columns of one length by data.columns")
    if not all(lengths.values()):
        raise UserError(f"{path} has no rows in {', '.join(names)}; give a table with at least 2")


def numbers(table: Table, path: Path, name: str) -> np.ndarray:
    """The values of a column as float64 (N, k).

    Raises:
        UserError: text, an empty cell, NaN or infinity; names file, row and column.
    """
    column = table.columns[name]
    if column.dtype.kind in "biuf":
        values = column.astype(np.float64)
    elif column.dtype.kind in "OUS" and column.ndim == 1:
        values = _parsed(table, path, name)
    else:
        raise UserError(f"{path}, column {name}: holds {column.dtype}, no numbers; leave it out by data.columns=[...]")
    values = values.reshape(len(values), -1)
    bad = ~np.isfinite(values).all(axis=1)
    if bad.any():
        row = int(bad.argmax())
        value = values[row][~np.isfinite(values[row])][0]
        rest = f", and {int(bad.sum()) - 1} more rows" if bad.sum() > 1 else ""
        raise UserError(f"{path}, {table.row(row)}, column {name}: {value} is not finite{rest}; remove or repair it")
    return values


def classes(table: Table, path: Path, name: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """The class (N,) of each row, from 0, and the names of the classes, sorted as numbers where they all are numbers.

    Raises:
        UserError: an empty cell or NaN, or a column in which no value occurs twice.
    """
    column = table.columns[name]
    column = column[:, 0] if column.ndim == 2 and column.shape[1] == 1 else column
    if column.ndim != 1:
        raise UserError(f"{path}, column {name}: class labels need one value for each row, got {column.shape[1:]}")
    values = [_class_name(value) for value in column.tolist()]
    for row, value in enumerate(values):
        if value.lower() in MISSING:
            found = f"{value!r} stands for a missing label" if value else "no class label"
            raise UserError(f"{path}, {table.row(row)}, column {name}: {found}; remove the row or name its class")
    names = sorted(set(values), key=_natural if all(map(_is_number, values)) else str)
    if len(names) == len(values) > 1:
        raise UserError(
            f"{path}, column {name}: every row has another value, so it holds no classes; take another "
            f"data.label_column, or null"
        )
    index = {value: i for i, value in enumerate(names)}
    return np.array([index[value] for value in values]), tuple(names)


def _csv(path: Path) -> Table:
    """Fields between commas, semicolons or tabs, else spaces.

    The first line is the header if it holds no number, or just 0, 1, 2, ..., the default names of a data frame.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not in UTF-8 ({first_line(error)}); save it in UTF-8") from error
    first = next((line for line in text.splitlines() if line.strip()), "")
    delimiter = max(",;\t", key=first.count)
    if delimiter not in first:
        text, delimiter = "\n".join(" ".join(line.split()) for line in text.splitlines()), " "
    reader = csv.reader(io.StringIO(text), delimiter=delimiter, skipinitialspace=True)
    rows, lines = [], []
    for fields in reader:
        if any(field.strip() for field in fields):
            rows.append([field.strip() for field in fields])
            lines.append(reader.line_num)
    if not rows:
        raise UserError(f"{path} is empty; give a table with at least 2 rows")
    names, names_from = [str(i) for i in range(len(rows[0]))], "the file has no header"
    if not any(map(_is_number, rows[0])) or _counts_up(rows[0]):
        names_from = f"the names are those of line {lines[0]}"
        names, lines = _without_hash(rows.pop(0)), lines[1:]
    for fields, line in zip(rows, lines, strict=True):
        if len(fields) != len(names):
            raise UserError(
                f"{path}, line {line}: {len(fields)} fields, but the table has {len(names)} columns "
                f"({', '.join(names)}); give every row as many"
            )
    _refuse_twins(path, names)
    columns = zip(*rows, strict=True) if rows else ([] for _ in names)
    named = {name: np.array(column, dtype=object) for name, column in zip(names, columns, strict=True)}
    return Table(named, lines, names_from)


def _npy(path: Path) -> Table:
    return Table(_of_array(path, np.load(path, allow_pickle=False)))


def _npz(path: Path) -> Table:
    """Arrays by name; the columns of a single array (N, d) are called 0, 1, 2, ..."""
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    if len(arrays) == 1:
        return Table(_of_array(path, *arrays.values()))
    scalar = [name for name, array in arrays.items() if array.ndim == 0]
    if scalar:
        raise UserError(f"{path}: {scalar[0]} is a single number, not a column; save only arrays of equal length")
    return Table(arrays)


def _parquet(path: Path) -> Table:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise UserError(
            f"{path}: reading .parquet needs a package: pip install 'pyarrow>=15'; or save the table as .csv"
        ) from error
    table = parquet.read_table(path)
    _refuse_twins(path, table.column_names)
    return Table({name: table.column(name).to_numpy() for name in table.column_names})


READERS: Mapping[str, Callable[[Path], Table]] = {".csv": _csv, ".npy": _npy, ".npz": _npz, ".parquet": _parquet}
"""Ending of a file -> its reader."""


def _of_array(path: Path, array: np.ndarray) -> Columns:
    """The columns of an array (N,) or (N, d), or the fields of a structured one."""
    if array.dtype.names:
        return {name: array[name] for name in array.dtype.names}
    if array.ndim not in (1, 2):
        raise UserError(f"{path} holds an array of shape {array.shape}; a table has shape (rows, columns)")
    return {str(i): column for i, column in enumerate(array.reshape(len(array), -1).T)}


def _parsed(table: Table, path: Path, name: str) -> np.ndarray:
    column = table.columns[name]
    row = next((i for i, value in enumerate(column.tolist()) if not _is_number(value)), None)
    if row is None:
        return column.astype(np.float64)
    value = column[row]
    what = "an empty cell" if value in ("", None) else f"{str(value)[:40]!r} is not a number"
    raise UserError(
        f"{path}, {table.row(row)}, column {name}: {what}; repair it, or leave the column out by data.columns=[...]"
    )


def _refuse_twins(path: Path, names: Sequence[str]) -> None:
    twins = [name for name in names if list(names).count(name) > 1]
    if twins:
        raise UserError(f"{path} has several columns called {twins[0]!r}; give each its own name")


def _without_hash(names: list[str]) -> list[str]:
    """The names of a header that NumPy wrote as a comment: ``# x,y`` and ``#x,y``."""
    names = names[1:] if names[0] == "#" else names
    return [names[0].lstrip("#").strip(), *names[1:]] if names else names


def _counts_up(fields: Sequence[str]) -> bool:
    """Whether these are 0, 1, 2, ..., or that after an empty field: the names of a data frame that was given none."""
    return len(fields) > 1 and list(fields) in (
        [str(i) for i in range(len(fields))],
        ["", *(str(i) for i in range(len(fields) - 1))],
    )


def _is_number(value: object) -> bool:
    if isinstance(value, str | bytes) and ("_" in value if isinstance(value, str) else b"_" in value):
        return False  # Python reads 1_0 as 10
    try:
        float(value)  # type: ignore[arg-type]
    except (ValueError, TypeError):
        return False
    return True


def _class_name(value: object) -> str:
    """The text of a class label: ``3`` for 3, for 3.0 and for the text of either."""
    text = value.decode(errors="replace") if isinstance(value, bytes) else str(value).strip()
    is_whole = "." in text and _is_number(text) and float(text).is_integer()
    return str(int(float(text))) if is_whole else text


def _natural(name: str) -> tuple[float, str]:
    return float(name), name
