"""Puts the report of a run together and writes it as one file."""

from pathlib import Path

from litdiffusion.reports.html.blocks import Page
from litdiffusion.reports.html.images import Room
from litdiffusion.reports.html.render import rendered
from litdiffusion.reports.run.config import config_section
from litdiffusion.reports.run.curves import curves_section
from litdiffusion.reports.run.evaluations import evaluations_section
from litdiffusion.reports.run.facts import STATES, cards, environment_section, lead, setup_section, status_words
from litdiffusion.reports.run.pictures import process_section, samples_sections
from litdiffusion.reports.run.reading import Reading, read_run
from litdiffusion.runs.files import write_atomically

REPORT = "report.html"


def write_report(folder: Path) -> Path:
    """Writes ``report.html`` into a run's folder from the files that lie there; returns its path.

    Raises:
        UserError: the folder holds no run, or its record is damaged.
    """
    path = folder / REPORT
    write_atomically(path, rendered(run_page(read_run(folder))))
    return path


def run_page(run: Reading) -> Page:
    """The page of a run."""
    room = Room()
    sections = [
        *samples_sections(run, room),
        curves_section(run),
        process_section(run, room),
        evaluations_section(run, room),
        setup_section(run),
        config_section(run),
        environment_section(run),
    ]
    return Page(
        kind="Report of a run",
        title=run.name,
        status=status_words(run),
        state=STATES.get(run.status, "open"),
        lead=list(lead(run)),
        cards=cards(run),
        sections=[section for section in sections if section is not None],
        footer=f"Made from the files in the run's folder; litdiffusion report {run.place} writes this page anew.",
    )
