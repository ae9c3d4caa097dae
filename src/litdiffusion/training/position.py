"""Position of a training run, and the state that Lightning's loops need to continue exactly from there."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torch import Tensor


class Position(NamedTuple):
    """Position of training right after an optimizer step.

    Args:
        step: optimizer steps so far.
        epoch: complete passes over the data when this step's batch began.
        batch: batches of this epoch so far.
        total: batches of all epochs so far.
        last: whether these include the epoch's last batch.
    """

    step: int = 0
    epoch: int = 0
    batch: int = 0
    total: int = 0
    last: bool = False


@dataclass
class Progress:
    """Values that change at every step; not a torch module, where setting an attribute takes microseconds.

    Args:
        position: position after the last optimizer step.
        finished: whether training has ended.
        updating: whether the weights have moved but the average has not; no checkpoint may be written meanwhile.
        rate: learning rate of the last step.
        gradient_norm: norm of the last gradient, before clipping.
    """

    position: Position = field(default_factory=Position)
    finished: bool = False
    updating: bool = False
    rate: float = 0.0
    gradient_norm: Tensor | float = 0.0


def rewind(fit_loop: dict[str, Any], at: Position, counts_steps: bool) -> None:
    """Sets a checkpoint's loop state to the end of the batch at ``at``, whichever hook wrote the file.

    Lightning's counters differ between the hooks that write checkpoints. Inside a window of accumulated gradients they
    are ahead of the weights. Only this function sets them. A resumed run then trains the next batch first: it repeats
    no batch, skips none, and repeats no validation.

    Args:
        fit_loop: ``checkpoint["loops"]["fit_loop"]``, which is changed.
        at: position that the weights belong to.
        counts_steps: whether the resuming trainer has ``max_steps``; a trainer with ``max_epochs`` alone does not treat
            a run between two epochs as a restarted one.
    """
    between = at.last or at.total == 0
    done = at.epoch + at.last
    epochs = dict.fromkeys(("ready", "started"), done if between else done + 1)
    epochs |= dict.fromkeys(("processed", "completed"), done)
    # Because a restarted loop itself completes its last batch, and counts the logged step of that batch.
    pending = int(at.total > 0 and (counts_steps or not between))
    for part, batches in (("total", at.total), ("current", at.batch)):
        counts = dict.fromkeys(("ready", "started", "processed"), batches)
        fit_loop["epoch_loop.batch_progress"][part] = counts | {"completed": batches - pending}
        fit_loop["epoch_progress"][part] = dict(epochs)
    fit_loop["epoch_loop.batch_progress"]["is_last_batch"] = False
    fit_loop["epoch_loop.state_dict"]["_batches_that_stepped"] = at.step - pending
