"""Trains a few steps of a run in a temporary folder: for ``trainer.fast_dev_run``, and to measure the run's speed."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from omegaconf import DictConfig

from litdiffusion.build import Experiment, Run, build
from litdiffusion.callbacks import Stopped
from litdiffusion.commands.failures import errors_in_words


@contextmanager
def rehearsal(cfg: DictConfig, run: Run) -> Iterator[Experiment]:
    """The run in a temporary folder, before ``fit``; a run in ``run.dir`` does not change.

    Errors and signals inside the block end the process as in training.
    """
    with tempfile.TemporaryDirectory() as folder:
        experiment = build(cfg, replace(run, dir=Path(folder) / "run"))
        with experiment.interrupts.listening():
            try:
                with errors_in_words(experiment.trainer):
                    yield experiment
            except Stopped as stop:
                raise SystemExit(128 + stop.signum) from None
