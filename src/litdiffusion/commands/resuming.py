"""Which checkpoint a run starts from, and whether a run is complete."""

from pathlib import Path
from typing import Any, NamedTuple

import lightning as L

from litdiffusion.build import Experiment, Run
from litdiffusion.commands.messages import print_once
from litdiffusion.config.identity import check_classes, check_fits, longer, measured_anew, same_length
from litdiffusion.config.keys import Use
from litdiffusion.data.identity import Identity, change, rows_of
from litdiffusion.errors import TrainingError, UserError
from litdiffusion.runs.record import read_data_rows, read_record
from litdiffusion.training.checkpoints import LAST, newest_checkpoint, read_checkpoint
from litdiffusion.training.length import total_steps
from litdiffusion.training.position import Position


class Start(NamedTuple):
    """Where an attempt starts.

    Args:
        path: checkpoint that it continues from, or None.
        step: step of that checkpoint.
        own: whether the run itself wrote it.
        rows: what it knows of the rows of ``metrics.csv``, see `litdiffusion.runs.log.keep_rows`.
    """

    path: Path | None = None
    step: int = 0
    own: bool = False
    rows: list[Any] | None = None


def checkpoint_to_start_from(experiment: Experiment, run: Run, config: dict[str, Any]) -> Start:
    """The newest checkpoint of the run with steps left to do, else ``ckpt_path``, else none.

    A checkpoint of the last step is used if the validation and the samples after that step may be missing. A
    checkpoint of a finished run is used only if ``config`` makes the run longer.

    Raises:
        UserError: the checkpoint belongs to another model or process, ``ckpt_path`` has no steps or epochs left, or the
            run was started with another length and is already longer than ``config`` allows.
    """
    trainer = experiment.trainer

    def usable(content: dict[str, Any]) -> bool:
        # Not the record's config, which another process or attempt may have made longer already.
        then, length = content["litdiffusion"].get("config", {}), _finished_length(content, trainer)
        if length is not None and not same_length(then, config):
            raise UserError(
                f"{run.dir} already has {length}; raise trainer.max_{length.partition(' ')[2]} above that to continue "
                f"it, or give resume=false to start a new run beside it"
            )
        return length is None and (longer(then, config) or not content["progress"]["finished"])

    path, lines = newest_checkpoint(run.dir, usable)
    for line in lines:
        print_once(experiment, f"warning: {line}")
    if path is None and experiment.cfg.ckpt_path is not None:
        path = Path(experiment.cfg.ckpt_path)
    if path is None:
        return Start()
    content = read_checkpoint(path)
    if length := _finished_length(content, trainer):
        raise UserError(
            f"{path} has all of its {length}; to continue raise trainer.max_{length.partition(' ')[2]} above that "
            f"(with lr_schedule=constant, since a cosine has decayed to zero)"
        )
    own = path.is_relative_to(run.dir)
    check_fits(content, experiment.module, path, Use.RUN if own else Use.MODEL)
    if not own and (changed := measured_anew(content, experiment.module)):
        print_once(experiment, f"measured on this run's data, unlike {path}: {', '.join(changed)}")
    return Start(path, content["global_step"], own, content["progress"].get("rows") if own else None)


def same_data(experiment: Experiment, run: Run) -> Identity:
    """What identifies the data, if they are those that the run in ``run.dir`` recorded when it was started.

    Data that differ at every reading cannot be compared; that is warned of. So are changed data that
    ``allow_changed_data=true`` accepts, unless a conditional model would take a class for another one.

    Raises:
        UserError: the data have changed since.
    """
    now, record = experiment.facts.identity(), read_record(run.dir)
    if record is None or record.data is None:
        return now
    changed = change(record.data, rows_of(read_data_rows(run.dir)), now)
    if changed is None:
        return now
    what = f"the data of {run.dir} have changed since it was started: {changed}"
    if experiment.cfg.allow_changed_data:
        remedy = "restore them, or start a new run beside it by resume=false"
        check_classes(record.data.get("class_names", ()), experiment.module.class_names, run.dir, remedy)
        print_once(experiment, f"warning: {what}; it goes on with them (allow_changed_data=true)")
    elif not experiment.facts.repeatable():
        print_once(
            experiment,
            f"warning: {experiment.facts.name} gives other items at every reading, so a change of the data cannot be "
            f"noticed; seed it for a run that can be repeated",
        )
    else:
        raise UserError(
            f"{what}; restore them, start a new run beside it by resume=false, or go on with the changed data by "
            f"allow_changed_data=true"
        )
    return now


def check_complete(experiment: Experiment, run: Run) -> int:
    """The number of steps of a complete run: all steps or epochs, its full time, or ended by a callback.

    Raises:
        TrainingError: the run is not complete although Lightning's ``fit`` returned.
    """
    trainer, path = experiment.trainer, run.dir / "checkpoints" / LAST
    if trainer.world_size > 1 and trainer.state.finished and trainer.global_step == 0 and path.is_file():
        # ddp_spawn and ddp_notebook train in child processes; this process sees only the checkpoint that they wrote.
        content = read_checkpoint(path)
        if content["progress"]["finished"]:
            return content["global_step"]
    steps = trainer.max_steps != -1 and trainer.global_step >= trainer.max_steps
    epochs = trainer.max_epochs not in (None, -1) and trainer.current_epoch >= trainer.max_epochs
    if not (trainer.state.finished and (steps or epochs or trainer.should_stop)):
        raise TrainingError(
            f"training ended after {trainer.global_step} of {total_steps(trainer, experiment.data):,} steps although "
            f"nothing requested an end; check the callbacks and limit_train_batches={trainer.limit_train_batches}"
        )
    return trainer.global_step


def _finished_length(content: dict[str, Any], trainer: L.Trainer) -> str | None:
    """``4 steps`` or ``2 epochs`` if a checkpoint has all steps or epochs of the trainer; None if some are left."""
    steps, position = content["global_step"], Position(*content["progress"]["position"])
    epochs = position.epoch + position.last
    if trainer.max_steps != -1 and steps >= trainer.max_steps:
        return f"{steps} steps"
    if trainer.max_epochs not in (None, -1) and epochs >= trainer.max_epochs:
        return f"{epochs} epochs"
    return None
