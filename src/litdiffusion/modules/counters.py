"""Lightning's counters in a checkpoint, as functions of the step."""

from typing import Any


def count_calls(fit_loop: dict[str, Any], calls: int) -> None:
    """Makes the loop's state in a checkpoint that of ``calls`` finished calls in the middle of the one long epoch.

    Lightning counts calls when they begin; a call that was cut short, or an end of training that was saved, would shift
    the validations of the run that goes on. Changes ``fit_loop``, which the hook is given to change.
    """
    batches = dict.fromkeys(("ready", "completed", "started", "processed"), calls)
    for part in ("total", "current"):
        fit_loop["epoch_loop.batch_progress"][part] = dict(batches)
        fit_loop["epoch_progress"][part] = {"ready": 1, "completed": 0, "started": 1, "processed": 0}
    fit_loop["epoch_loop.batch_progress"]["is_last_batch"] = False
