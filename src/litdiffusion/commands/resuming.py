"""Which checkpoint a run goes on from, and whether a run is complete."""

from pathlib import Path
from typing import Any

import lightning as L

from litdiffusion.build import Experiment, Run
from litdiffusion.commands.messages import print_once
from litdiffusion.config.identity import check_fits, longer
from litdiffusion.errors import TrainingError, UserError
from litdiffusion.runs.record import read_record
from litdiffusion.training.checkpoints import LAST, newest_checkpoint, read_checkpoint
from litdiffusion.training.length import total_steps
from litdiffusion.training.position import Position


def checkpoint_to_start_from(experiment: Experiment, run: Run, config: dict[str, Any]) -> Path | None:
    """The run's own newest checkpoint that leaves something to do, else ``ckpt_path``, else None.

    A checkpoint with all steps counts as unfinished while the validation and the samples after the last step may be
    missing. A finished one is taken only where ``config`` makes the run longer.

    Raises:
        UserError: the checkpoint is of another model or process, or has all of its steps or epochs.
    """
    trainer, record = experiment.trainer, read_record(run.dir)
    prolonged = record is not None and longer(record, config)

    def usable(content: dict[str, Any]) -> bool:
        return _finished_length(content, trainer) is None and (prolonged or not content["progress"]["finished"])

    path, lines = newest_checkpoint(run.dir / "checkpoints", usable)
    for line in lines:
        print_once(experiment, f"warning: {line}")
    if path is None and experiment.cfg.ckpt_path is not None:
        path = Path(experiment.cfg.ckpt_path)
        if length := _finished_length(read_checkpoint(path), trainer):
            raise UserError(
                f"{path} has all of its {length}; to go on raise trainer.max_{length.partition(' ')[2]} above that "
                f"(with lr_schedule=constant, since a cosine has ended at zero)"
            )
    if path is not None:
        check_fits(read_checkpoint(path), experiment.module, path)
    return path


def check_complete(experiment: Experiment, run: Run) -> int:
    """The steps of a run that has done what was asked: all steps or epochs, its time, or until a callback ended it.

    Of processes that Lightning starts and ends itself (ddp_spawn, ddp_notebook) only what they wrote is known here.

    Raises:
        TrainingError: it has not, although Lightning's ``fit`` returned.
    """
    trainer, path = experiment.trainer, run.dir / "checkpoints" / LAST
    if trainer.world_size > 1 and trainer.state.finished and trainer.global_step == 0 and path.is_file():
        content = read_checkpoint(path)
        if content["progress"]["finished"]:
            return content["global_step"]
    steps = trainer.max_steps != -1 and trainer.global_step >= trainer.max_steps
    epochs = trainer.max_epochs not in (None, -1) and trainer.current_epoch >= trainer.max_epochs
    if not (trainer.state.finished and (steps or epochs or trainer.should_stop)):
        raise TrainingError(
            f"training ended after {trainer.global_step} of {total_steps(trainer, experiment.data):,} steps although "
            f"nothing asked for an end; a callback or limit_train_batches={trainer.limit_train_batches} "
            f"may have cut it short"
        )
    return trainer.global_step


def _finished_length(content: dict[str, Any], trainer: L.Trainer) -> str | None:
    """``4 steps`` or ``2 epochs``, where a checkpoint has all that the trainer would do; None: something is left."""
    steps, position = content["global_step"], Position(*content["progress"]["position"])
    epochs = position.epoch + position.last
    if trainer.max_steps != -1 and steps >= trainer.max_steps:
        return f"{steps} steps"
    if trainer.max_epochs not in (None, -1) and epochs >= trainer.max_epochs:
        return f"{epochs} epochs"
    return None
