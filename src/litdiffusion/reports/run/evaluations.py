"""The evaluations and likelihoods that lie in a run's folder."""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from litdiffusion.reports.html.blocks import Block, Cell, Picture, Section, Table
from litdiffusion.reports.html.images import Room
from litdiffusion.reports.numbers import estimate_text, number_text
from litdiffusion.reports.run.reading import Reading
from litdiffusion.runs.metric_goals import SPREAD

TABLES = {"quality.csv": "Evaluation", "likelihood.csv": "Likelihood of held-out data"}
PICTURES = {
    "quality.png": "Quality against network calls. Dashed lines: data and density estimates in the place of samples.",
    "guidance.png": "Quality against the weight of guidance.",
    "nearest.png": "Samples, and the training images that are nearest to them.",
    "likelihood.png": "The terms of the bound against t.",
}
NUMBERS = "_n"


def evaluations_section(run: Reading, room: Room) -> Section | None:
    """A table for each evaluation, with its pictures; None without any."""
    found = sorted(path for name in TABLES for path in run.folder.rglob(name))
    blocks = [block for path in found for block in _blocks(path, run.folder, room)]
    return Section("evaluations", "Evaluations", blocks) if blocks else None


def _blocks(path: Path, folder: Path, room: Room) -> Iterator[Block]:
    with path.open(newline="", errors="replace") as file:
        rows = list(csv.DictReader(file))
    if not rows:
        return
    columns = [name for name in rows[0] if name and not _beside(name, rows[0])]
    cells = [[_cell(name, row) for name in columns] for row in rows]
    place = path.parent.relative_to(folder)
    caption = f"{TABLES[path.name]} in {place}. ±: one standard deviation. Over floor: 1 is as good as data."
    yield Table(columns, cells, caption, sortable=True)
    for name, words in PICTURES.items():
        if (path.parent / name).is_file() and (image := room.embed(path.parent / name, width=1000, limit=80_000)):
            yield Picture(image, Path(name).stem.capitalize(), words, words)


def _beside(name: str, row: Sequence[str]) -> bool:
    """Whether a column holds the spread or the number n of another one."""
    return any(name.endswith(end) and name.removesuffix(end) in row for end in (SPREAD, NUMBERS))


def _cell(name: str, row: dict[str, str]) -> Cell:
    text, spread = row.get(name) or "", row.get(name + SPREAD) or ""
    try:
        value = float(text)
    except ValueError:
        return Cell(text)
    if not spread:
        return Cell(text if value.is_integer() and "." not in text else number_text(value), value)
    return Cell(estimate_text(value, float(spread)), value)
