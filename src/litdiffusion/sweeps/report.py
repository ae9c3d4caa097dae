"""What a sweep says when it ends."""

import signal
import sys
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

_STARTED: list[Path] = []


class SweepStart(Callback):
    """Hydra's callback: notes the folder of a sweep that this command starts.

    Its counterpart at the end would not do: Hydra 1.3 leaves it out where a job or the launcher failed.
    """

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        if config.sweep is not None:
            _STARTED[:] = [Path(config.hydra.sweep.dir)]
            # Else SIGTERM would leave a launcher's processes behind. Training has a handler of its own.
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


def end(stopped: bool) -> bool:
    """Prints the table of the sweep that this command ran, if it ran one; returns whether all its jobs are done."""
    if not _STARTED:
        return True
    folder = _STARTED.pop()
    if stopped:  # somebody waits
        print("sweep stopped; the same command continues it", flush=True)
        return False
    if not any(folder.glob("*/run.json")):
        return False  # no job had begun, and why has been said
    return report(folder)


def report(folder: Path) -> bool:
    """Prints the table of the sweep in ``folder`` and writes it beside the jobs; returns whether all are done.

    Raises:
        UserError: a folder without jobs.
    """
    from litdiffusion.sweeps.comparison import DONE, compare, text, write_files

    comparison = compare(folder)
    done = sum(job.status in DONE for job in comparison.jobs)
    print(f"\n{text(comparison)}", flush=True)
    paths = write_files(comparison)
    print(f"{done} of {len(comparison.jobs)} jobs done; table: {paths[0]}, picture: {paths[1]}", flush=True)
    return not comparison.unfinished
