"""Tables of results, as aligned text for the terminal and as csv."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from litdiffusion.measure.distances import Estimate
from litdiffusion.reports.numbers import estimate_text
from litdiffusion.runs.files import write_rows

Cell = str | int | float | Estimate | None
Row = Mapping[str, Cell]


def text_table(rows: Sequence[Row], columns: Sequence[str]) -> str:
    """The rows as aligned columns, numbers flush right; a missing cell is empty."""
    lines = [list(columns), *([format_cell(row.get(name)) for name in columns] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    left = [all(isinstance(row.get(name), str | None) for row in rows) for name in columns]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if flush else cell.rjust(width)
            for cell, width, flush in zip(line, widths, left, strict=True)
        ).rstrip()
        for line in lines
    )


def format_cell(cell: Cell) -> str:
    """A number to three significant digits; an estimate as ``value ± spread``, with two digits of the spread."""
    match cell:
        case None:
            return ""
        case Estimate(value, spread, _):
            return estimate_text(value, spread)
        case float():
            return f"{cell:.3g}" if abs(cell) < 1000 else f"{cell:.0f}"
        case _:
            return str(cell)


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    """Writes all cells; an estimate has three columns, ``name``, ``name_spread`` and ``name_n``."""
    flat = [dict(pair for name, cell in row.items() for pair in _columns(name, cell)) for row in rows]
    names = list(dict.fromkeys(name for row in flat for name in row))
    write_rows(path, names, flat)


def _columns(name: str, cell: Cell) -> list[tuple[str, Cell]]:
    if isinstance(cell, Estimate):
        return [(name, cell.value), (f"{name}_spread", cell.spread), (f"{name}_n", cell.n)]
    return [(name, cell)]
