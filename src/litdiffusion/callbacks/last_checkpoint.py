"""The checkpoint that an interrupted run goes on from."""

import contextlib
import time
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Checkpoint

from litdiffusion.callbacks.interrupts import Stopped
from litdiffusion.errors import TrainingError, UserError
from litdiffusion.runs.record import note_progress
from litdiffusion.training import DiffusionModule
from litdiffusion.training.checkpoints import LAST


class LastCheckpoint(Checkpoint):
    """Keeps ``checkpoints/last.ckpt``: at an interval, before every validation, when the run is stopped, at its end.

    A run that goes on from it does again all that the first one did after it. So it is written where nothing is left to
    do for the last step: when the next batch begins, after the validation, the pictures and the rows of that step; and
    when training and all its pictures are over.

    Args:
        run_dir: folder of the run.
        every_n_steps: interval; None: only before validations.
        minutes: at most so long between two of them, in a run of one process; None: no such limit.
    """

    kept = 3
    """Files at once: the last, the one before it, and the one being written."""

    def __init__(self, run_dir: Path, every_n_steps: int | None = None, minutes: float | None = 10.0):
        if minutes is not None and not minutes > 0:
            raise UserError(f"callbacks.last.minutes must be positive, or null, got {minutes}")
        self.path = run_dir / "checkpoints" / LAST
        self.every_n_steps, self.minutes = every_n_steps, minutes
        self._run_dir = run_dir

    def on_train_start(self, trainer: L.Trainer, pl_module: DiffusionModule) -> None:
        self._saved_step = self._finished_step = trainer.global_step
        self._saved_at = time.monotonic()

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: DiffusionModule, batch: Any, batch_idx: int) -> None:
        step = trainer.global_step
        every = self.every_n_steps
        due = (every and step // every > self._saved_step // every) or self._minutes_are_over(trainer)
        if step > self._saved_step and (due or validation_follows(trainer, batch_idx)):
            self._save(trainer)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: DiffusionModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._finished_step = trainer.global_step

    def on_train_end(self, trainer: L.Trainer, pl_module: DiffusionModule) -> None:
        pl_module.progress.finished = True
        self._save(trainer)

    def on_exception(self, trainer: L.Trainer, pl_module: DiffusionModule, exception: BaseException) -> None:
        """Saves a run that was stopped or broke off between two steps.

        After the last step nothing is saved: its validation and the samples are done again, from before that step.
        """
        step, finished = trainer.global_step, getattr(self, "_finished_step", -1)
        between = trainer.training and step == finished and not (pl_module.progress.updating or trainer.should_stop)
        all_processes_stop = trainer.world_size == 1 or isinstance(exception, Stopped | TrainingError)
        if between and all_processes_stop and step > self._saved_step:
            with contextlib.suppress(OSError):  # the first error is the one to tell; older checkpoints are whole
                self._save(trainer)

    def _save(self, trainer: L.Trainer) -> None:
        if trainer.fast_dev_run:
            return
        trainer.save_checkpoint(self.path, weights_only=False)
        now = time.monotonic()
        if trainer.is_global_zero:
            note_progress(self._run_dir, trainer.global_step, now - self._saved_at)
        self._saved_step, self._saved_at = trainer.global_step, now

    def _minutes_are_over(self, trainer: L.Trainer) -> bool:
        if self.minutes is None or trainer.world_size > 1:
            return False  # clocks differ, and all processes must save together
        return time.monotonic() - self._saved_at > 60 * self.minutes


def validation_follows(trainer: L.Trainer, batch_idx: int) -> bool:
    """Whether Lightning validates at the end of the batch that begins, as far as steps and epochs decide that."""
    last = is_last_batch(trainer, batch_idx)
    if not trainer.enable_validation or trainer.val_check_batch is None:
        return last
    every = trainer.check_val_every_n_epoch
    if every is not None and (trainer.current_epoch + 1) % every:
        return last
    done = (trainer.fit_loop.total_batch_idx if every is None else batch_idx) + 1
    return last or done % trainer.val_check_batch == 0


def is_last_batch(trainer: L.Trainer, batch_idx: int) -> bool:
    """Whether training ends with the batch that begins, or that has just ended, by its number of steps or epochs."""
    ends = batch_idx + 1 == trainer.num_training_batches
    if ends and trainer.max_epochs not in (None, -1) and trainer.current_epoch + 1 >= trainer.max_epochs:
        return True
    steps = ends or (batch_idx + 1) % trainer.accumulate_grad_batches == 0
    before = trainer.global_step - trainer.lightning_module.stepped
    return trainer.max_steps != -1 and before + steps >= trainer.max_steps
