"""``litdiffusion report outputs/my_run``: the page of a run, or of a sweep. Imports no torch."""

import argparse
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path

from litdiffusion.errors import UserError, listed
from litdiffusion.reports.run import REPORT, write_report
from litdiffusion.reports.run.reading import shown_path
from litdiffusion.runs.record import FILE
from litdiffusion.sweeps.page import write_sweep_report

DEPTH = 3
"""Levels of folders that are searched for runs to suggest."""


def main(program: str) -> None:
    """Reads the command line of ``program``, writes the page and prints its path."""
    parser = argparse.ArgumentParser(
        program, description=f"Writes {REPORT} into the folder of a run or of a sweep: one page that needs no server."
    )
    parser.add_argument("folder", type=Path, help="outputs/my_run, or a sweep: outputs/sweeps/NAME")
    path = report(parser.parse_args().folder)
    print(f"report: {path} ({path.stat().st_size / 1e6:.1f} MB)")


def report(folder: Path) -> Path:
    """Writes the page of the run or the sweep in ``folder``; returns its path.

    Raises:
        UserError: the folder is neither, or the page cannot be written.
    """
    try:
        if (folder / FILE).is_file():
            return write_report(folder)
        if any(folder.glob(f"*/{FILE}")):
            return write_sweep_report(folder)
    except OSError as error:
        raise UserError(f"{error.filename or folder} cannot be written or read ({error.strerror})") from error
    raise UserError(
        f"{folder} {'holds neither' if folder.is_dir() else 'does not exist; give'} a run ({FILE}) "
        f"{'nor' if folder.is_dir() else 'or'} a sweep (folders with {FILE}){_suggestion(folder)}"
    )


def _suggestion(folder: Path) -> str:
    """The nearest folders of runs and sweeps, if there are any."""
    place = next((parent for parent in folder.absolute().parents if parent.is_dir()), Path("/"))
    known = {path.name: path for start in (place, Path("outputs")) for path in _found(start)}
    close = get_close_matches(folder.name, known, n=1, cutoff=0.5)
    if close:
        return f"; did you mean {shown_path(known[close[0]])}?"
    return f"; there are {listed([shown_path(path) for path in known.values()])}" if known else ""


def _found(place: Path) -> Iterator[Path]:
    """Folders of runs and of sweeps below a place, the runs of a sweep through the sweep alone."""
    for depth in range(1, DEPTH + 1) if place.is_dir() and place != Path("/") else ():
        for record in sorted(place.glob("*/" * depth + FILE)):
            run = record.parent
            yield run.parent if run.parent.parent.name == "sweeps" else run
