"""How far a run has come, and what Lightning's loops need to know of it to go on from there exactly."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torch import Tensor


class Position(NamedTuple):
    """Where training stood right after a step of the optimizer.

    Args:
        step: steps of the optimizer so far.
        epoch: passes over the data that were complete when this step's batch began.
        batch: batches of this epoch so far.
        total: batches of all epochs so far.
        last: whether the epoch's last batch was among them.
    """

    step: int = 0
    epoch: int = 0
    batch: int = 0
    total: int = 0
    last: bool = False


@dataclass
class Progress:
    """What changes at every step; a plain object, since setting an attribute of a torch module takes microseconds.

    Args:
        position: of the last step of the optimizer.
        finished: whether nothing is left to do.
        updating: whether the weights have moved and the average has not yet followed: no checkpoint in between.
        rate: the learning rate of the last step.
        gradient_norm: before it was limited.
    """

    position: Position = field(default_factory=Position)
    finished: bool = False
    updating: bool = False
    rate: float = 0.0
    gradient_norm: Tensor | float = 0.0


def rewind(fit_loop: dict[str, Any], at: Position, counts_steps: bool) -> None:
    """Makes a checkpoint's loop state that of the end of the batch at ``at``, whenever the file was written.

    Lightning's counters stand differently in every hook that a checkpoint can be written from, and inside a window of
    accumulated gradients they are ahead of the weights. This is the one place where they are set. A run that goes on
    then trains the next batch first: it repeats no batch, skips none, and repeats no validation.

    Args:
        fit_loop: ``checkpoint["loops"]["fit_loop"]``, which is changed.
        at: the position that the weights belong to.
        counts_steps: whether the trainer that goes on has ``max_steps``; one that has ``max_epochs`` alone does not
            take a run between two epochs for a restarted one.
    """
    between = at.last or at.total == 0
    done = at.epoch + at.last
    epochs = dict.fromkeys(("ready", "started"), done if between else done + 1)
    epochs |= dict.fromkeys(("processed", "completed"), done)
    # A restarted loop completes its last batch itself, and counts the step of the log with it.
    pending = int(at.total > 0 and (counts_steps or not between))
    for part, batches in (("total", at.total), ("current", at.batch)):
        counts = dict.fromkeys(("ready", "started", "processed"), batches)
        fit_loop["epoch_loop.batch_progress"][part] = counts | {"completed": batches - pending}
        fit_loop["epoch_progress"][part] = dict(epochs)
    fit_loop["epoch_loop.batch_progress"]["is_last_batch"] = False
    fit_loop["epoch_loop.state_dict"]["_batches_that_stepped"] = at.step - pending
