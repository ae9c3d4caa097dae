"""Writes a page at the end of a run or a sweep, which must not suffer from it. Imports no torch."""

from collections.abc import Callable
from pathlib import Path

from litdiffusion.config.secrets import masked_text
from litdiffusion.errors import first_line
from litdiffusion.reports.run import REPORT, write_report


def write_quietly(folder: Path, write: Callable[[Path], Path] = write_report) -> None:
    """Writes the page of a run (or by ``write`` that of a sweep) that has just ended; a failure is one line."""
    try:
        print(f"report:     {write(folder)}", flush=True)
    except Exception as error:  # whatever goes wrong, the run itself has ended and is recorded
        reason = masked_text(f"{type(error).__name__}: {first_line(error)}")
        print(f"warning: no {REPORT} in {folder} ({reason}); litdiffusion report {folder} writes it", flush=True)
