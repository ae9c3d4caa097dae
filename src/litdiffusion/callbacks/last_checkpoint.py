"""The checkpoint that an interrupted run goes on from."""

import contextlib
import time
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Checkpoint

from litdiffusion.errors import TrainingError, UserError
from litdiffusion.modules import DiffusionModule
from litdiffusion.modules.checkpoints import LAST
from litdiffusion.modules.interrupts import Stopped
from litdiffusion.runs import note_progress


class LastCheckpoint(Checkpoint):
    """Keeps ``checkpoints/last.ckpt``: at an interval, before every validation, when the run is stopped, at its end.

    A run that goes on from it does again all that the first one did after it. So it is written only where nothing
    is left to do for its step: never between a step and the validation that follows it, and the last one when training
    and all its pictures are over.

    Args:
        run_dir: folder of the run.
        every_n_steps: interval.
        minutes: at most so long between two of them, in a run of one process; None: no such limit.
    """

    kept = 3
    """Files at once: the last, the one before it, and the one being written."""

    def __init__(self, run_dir: Path, every_n_steps: int, minutes: float | None = 10.0):
        if minutes is not None and not minutes > 0:
            raise UserError(f"callbacks.last.minutes must be positive, or null, got {minutes}")
        self.path = run_dir / "checkpoints" / LAST
        self.every_n_steps, self.minutes = every_n_steps, minutes
        self._run_dir = run_dir

    def on_train_start(self, trainer: L.Trainer, pl_module: DiffusionModule) -> None:
        self._saved, self._written = trainer.global_step, time.monotonic()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: DiffusionModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step = trainer.global_step
        due = step // self.every_n_steps > self._saved // self.every_n_steps or self._late(trainer)
        if not validates(trainer, step) and (due or validates(trainer, following(trainer))):
            self._save(trainer)

    def on_validation_end(self, trainer: L.Trainer, pl_module: DiffusionModule) -> None:
        """Where validations follow on each other at once, there is no moment before the next one."""
        step, last = trainer.global_step, trainer.max_steps
        if step < last and (step - self._saved >= self.every_n_steps or following(trainer) >= last):
            self._save(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: DiffusionModule) -> None:
        self._save(trainer)

    def on_exception(self, trainer: L.Trainer, pl_module: DiffusionModule, exception: BaseException) -> None:
        """Saves a run that was stopped or broke off between two steps, if that was all that was under way."""
        together = trainer.world_size == 1 or isinstance(exception, Stopped | TrainingError)
        step = trainer.global_step
        if not (trainer.training and pl_module.whole and together) or validates(trainer, step):
            return
        if step > getattr(self, "_saved", step):
            with contextlib.suppress(OSError):  # the first error is the one to tell; older checkpoints are whole
                self._save(trainer)

    def _save(self, trainer: L.Trainer) -> None:
        trainer.save_checkpoint(self.path)
        now = time.monotonic()
        if trainer.is_global_zero:
            note_progress(self._run_dir, trainer.global_step, now - self._written)
        self._saved, self._written = trainer.global_step, now

    def _late(self, trainer: L.Trainer) -> bool:
        if self.minutes is None or trainer.world_size > 1:
            return False  # clocks differ, and all processes must save together
        return time.monotonic() - self._written > 60 * self.minutes


def following(trainer: L.Trainer) -> int:
    """The step at the end of the next call of Lightning's loop."""
    inner = trainer.datamodule.inner_steps
    return min((trainer.global_step // inner + 1) * inner, trainer.max_steps)


def validates(trainer: L.Trainer, step: int) -> bool:
    """Whether validation follows on this step of the optimizer."""
    return step >= trainer.max_steps or step % (trainer.val_check_interval * trainer.datamodule.inner_steps) == 0
