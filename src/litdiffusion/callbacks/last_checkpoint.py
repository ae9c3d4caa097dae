"""The checkpoint that an interrupted run continues from."""

import contextlib
import os
import time
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from litdiffusion.callbacks.interrupts import Requeued, Stopped
from litdiffusion.errors import ProcessLost, TrainingError, UserError
from litdiffusion.runs.files import set_aside
from litdiffusion.runs.record import note_progress
from litdiffusion.training import DiffusionModule
from litdiffusion.training.checkpoints import LAST, is_intact, requeue_checkpoints


class LastCheckpoint(Checkpoint):
    """Writes ``checkpoints/last.ckpt``: at an interval, before validations, when the run is stopped, and at its end.

    A resumed run repeats everything that the first run did after this checkpoint. The checkpoint is therefore written
    when the last step is complete: at the start of the next batch, after the validation, the pictures and the rows of
    that step; and after training with all of its pictures.

    Args:
        run_dir: the run's folder.
        every_n_steps: interval in steps; None: only before validations.
        minutes: largest time between two checkpoints, in a run of one process; None: no limit.
    """

    kept = 3
    """Number of files at once: the last, the previous, and the one being written."""

    def __init__(self, run_dir: Path, every_n_steps: int | None = None, minutes: float | None = 10.0):
        if minutes is not None and not minutes > 0:
            raise UserError(f"callbacks.last.minutes must be positive, or null, got {minutes}")
        self.path = run_dir / "checkpoints" / LAST
        self.every_n_steps, self.minutes = every_n_steps, minutes
        self._run_dir = run_dir

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: DiffusionModule, checkpoint: dict[str, Any]) -> None:
        """Keeps the list of the best checkpoints if the run's folder was moved: Lightning would begin a new one.

        A file of the list that is damaged or gone is told, and leaves the list, so that another one can take its place.
        """
        states = checkpoint.get("callbacks", {})
        for callback in trainer.checkpoint_callbacks if self._continues(trainer) else ():
            if isinstance(callback, ModelCheckpoint) and callback.dirpath and callback.state_key in states:
                states[callback.state_key] = _intact(moved(states[callback.state_key], callback.dirpath))

    def on_train_start(self, trainer: L.Trainer, pl_module: DiffusionModule) -> None:
        self._saved_step = self._finished_step = trainer.global_step
        self._saved_at = time.monotonic()
        if self._continues(trainer):
            trainer.ckpt_path = None  # ModelCheckpoint never removes this file, even when it is no longer the best

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
        """Saves a run that was stopped or that failed between two steps.

        After the last step nothing is saved: a resumed run repeats that step, its validation and the samples. Nor is a
        run that Slurm requeues, which continues from Lightning's checkpoint.
        """
        if isinstance(exception, Requeued):
            return self._note(trainer)
        step, finished = trainer.global_step, getattr(self, "_finished_step", -1)
        between = trainer.training and step == finished and not (pl_module.progress.updating or trainer.should_stop)
        together = isinstance(exception, Stopped | TrainingError) and not isinstance(exception, ProcessLost)
        all_processes_stop = trainer.world_size == 1 or together
        if between and all_processes_stop and step > self._saved_step:
            with contextlib.suppress(OSError):  # report the first error; older files are intact
                self._save(trainer)

    def _continues(self, trainer: L.Trainer) -> bool:
        """Whether the run started from a checkpoint of its own."""
        start = trainer.ckpt_path
        return start is not None and Path(start).resolve().is_relative_to(self._run_dir.resolve())

    def _save(self, trainer: L.Trainer) -> None:
        if trainer.fast_dev_run:
            return
        trainer.save_checkpoint(self.path, weights_only=False)
        for older in requeue_checkpoints(self._run_dir) if trainer.is_global_zero else ():
            older.unlink(missing_ok=True)
        self._note(trainer)

    def _note(self, trainer: L.Trainer) -> None:
        """Records the step of the checkpoint that was just written."""
        now = time.monotonic()
        if trainer.is_global_zero:
            note_progress(self._run_dir, trainer.global_step, now - self._saved_at)
        self._saved_step, self._saved_at = trainer.global_step, now

    def _minutes_are_over(self, trainer: L.Trainer) -> bool:
        if self.minutes is None or trainer.world_size > 1:
            return False  # because clocks differ, and all processes must save together
        return time.monotonic() - self._saved_at > 60 * self.minutes


def moved(state: dict[str, Any], folder: str) -> dict[str, Any]:
    """The state of a ``ModelCheckpoint`` after its files were moved to ``folder``, under their new paths."""

    def place(path: str) -> str:
        inside = path and Path(path).is_relative_to(state["dirpath"])
        return str(Path(folder, Path(path).relative_to(state["dirpath"]))) if inside else path

    paths = {key: place(state[key]) for key in ("best_model_path", "kth_best_model_path", "last_model_path")}
    best = {place(path): score for path, score in state["best_k_models"].items()}
    return {**state, **paths, "best_k_models": best, "dirpath": folder}


def _intact(state: dict[str, Any]) -> dict[str, Any]:
    """The state of a ``ModelCheckpoint`` without files that are damaged or gone."""
    best = {path: score for path, score in state["best_k_models"].items() if is_intact(Path(path))}
    if len(best) == len(state["best_k_models"]):
        return state
    for path in sorted(state["best_k_models"].keys() - best.keys()):
        _tell_lost(Path(path))
    paths = {key: state[key] if state[key] in best else "" for key in ("best_model_path", "kth_best_model_path")}
    return {**state, **paths, "best_k_models": best}


@rank_zero_only
def _tell_lost(path: Path) -> None:
    if os.path.lexists(path):
        set_aside(path)
    print(
        f"warning: {path}, the best checkpoint so far, is damaged or gone; the best one from here on is kept",
        flush=True,
    )


def validation_follows(trainer: L.Trainer, batch_idx: int) -> bool:
    """Whether Lightning validates after the batch that begins, as far as steps and epochs decide that."""
    last = is_last_batch(trainer, batch_idx)
    if not trainer.enable_validation or trainer.val_check_batch is None:
        return last
    every = trainer.check_val_every_n_epoch
    if every is not None and (trainer.current_epoch + 1) % every:
        return last
    done = (trainer.fit_loop.total_batch_idx if every is None else batch_idx) + 1
    return last or done % trainer.val_check_batch == 0


def is_last_batch(trainer: L.Trainer, batch_idx: int) -> bool:
    """Whether ``max_steps`` or ``max_epochs`` ends training with the batch that begins or has just ended."""
    ends = batch_idx + 1 == trainer.num_training_batches
    if ends and trainer.max_epochs not in (None, -1) and trainer.current_epoch + 1 >= trainer.max_epochs:
        return True
    steps = ends or (batch_idx + 1) % trainer.accumulate_grad_batches == 0
    before = trainer.global_step - trainer.lightning_module.stepped
    return trainer.max_steps != -1 and before + steps >= trainer.max_steps
