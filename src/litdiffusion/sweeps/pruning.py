"""A search stops a trial that is worse than the earlier trials: ours by an exception, W&B's by a signal."""

import os
from typing import TYPE_CHECKING

import lightning as L

from litdiffusion.errors import Pruned

if TYPE_CHECKING:
    from optuna.trial import Trial


def pruned_by_wandb(trainer: L.Trainer, sweep: str | None, metric: str) -> Pruned | None:
    """What a signal means that has stopped a job of a sweep by W&B: its ``early_terminate`` has given the job up.

    The agent passes the server's decision on as SIGTERM, and kills the job 30 s later; W&B's client in the job sends
    SIGINT. An agent that is itself ended sends SIGTERM too. No agent comes back to a job, so that one counts as pruned
    as well. None: this is no such job.
    """
    if sweep is None or not os.environ.get("WANDB_SWEEP_ID"):
        return None
    return Pruned(metric, float(trainer.callback_metrics.get(metric, float("nan"))), trainer.global_step)


class Pruning(L.Callback):
    """Reports the job's metric to the search at every validation, and stops the job if the search's pruner decides so.

    A metric that is measured only at the end (``samples/...``) prunes nothing. Neither does the last validation, since
    no training is left to save.

    Args:
        trial: the job's trial of the study in the sweep's folder.
        metric: name of the run's metric.
    """

    def __init__(self, trial: "Trial", metric: str):
        self.trial, self.metric = trial, metric

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        value, step = trainer.callback_metrics.get(self.metric), trainer.global_step
        if value is None or trainer.sanity_checking or 0 < trainer.max_steps <= step:
            return
        prune = trainer.is_global_zero and self._should_prune(float(value), step)
        if trainer.strategy.broadcast(prune):
            raise Pruned(self.metric, float(value), step)

    def _should_prune(self, value: float, step: int) -> bool:
        self.trial.report(value, step)
        return self.trial.should_prune()
