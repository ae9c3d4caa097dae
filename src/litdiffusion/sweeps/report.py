"""Prints the table of a sweep when it ends."""

import signal
import sys
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

_STARTED: list[tuple[Path, bool]] = []
"""The folder of a sweep, and whether its page is written."""


class SweepStart(Callback):
    """Hydra callback that stores the folder of the sweep that this command starts.

    Hydra 1.3 does not call ``on_multirun_end`` after a failed job or launcher, so the command line calls
    `print_table_at_end`.
    """

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        if config.sweep is not None:
            _STARTED[:] = [(Path(config.hydra.sweep.dir), bool(config.get("report", True)))]
            # Without this handler SIGTERM leaves the launcher's processes running. Training sets its own handler.
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


def print_table_at_end(stopped: bool) -> bool:
    """Prints the table of the sweep that this command ran, if any; returns whether all its jobs are done."""
    if not _STARTED:
        return True
    folder, page = _STARTED.pop()
    if stopped:  # no table, since the user waits for the prompt
        print("sweep stopped; the same command continues it", flush=True)
        return False
    if not any(folder.glob("*/run.json")):
        return False  # no job began, and the error is already printed
    return print_table(folder, page)


def print_table(folder: Path, page: bool = True) -> bool:
    """Prints the table of the sweep in ``folder`` and writes it as files; returns whether all jobs are done.

    ``page``: also writes ``report.html``. If that fails, a line says so, and nothing else changes.

    Raises:
        UserError: the folder holds no jobs.
    """
    from litdiffusion.reports.quietly import write_quietly
    from litdiffusion.sweeps.comparison import DONE, compare, text, write_files
    from litdiffusion.sweeps.page import write_sweep_report

    comparison = compare(folder)
    done = sum(job.status in DONE for job in comparison.jobs)
    print(f"\n{text(comparison)}", flush=True)
    paths = write_files(comparison)
    print(f"{done} of {len(comparison.jobs)} jobs done; table: {paths[0]}, picture: {paths[1]}", flush=True)
    if page:
        write_quietly(folder, write_sweep_report)
    return not comparison.unfinished
