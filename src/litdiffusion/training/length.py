"""Length of a training run, from its trainer and its data."""

import math

import lightning as L
from lightning.fabric.utilities.data import sized_len

from litdiffusion.data import DataModule, Facts


def num_items(data: L.LightningDataModule, facts: Facts) -> int:
    """Number of training items; for a loader without a length, the number of known items."""
    if isinstance(data, DataModule):
        count = data.num_training_items
    else:
        count = sized_len(getattr(data.train_dataloader(), "dataset", None))
    return len(facts.train.data) if count is None else count


def batches_per_epoch(trainer: L.Trainer, data: L.LightningDataModule) -> float:
    """Number of batches of one process in one epoch; inf if the loader has no length."""
    limit = trainer.overfit_batches or trainer.limit_train_batches
    if isinstance(data, DataModule):
        items = math.inf if data.num_training_items is None else data.num_training_items
        count = items // (data.batch_size * trainer.world_size)
    else:
        length = sized_len(data.train_dataloader())
        count = math.inf if length is None else length
    return max(1, int(count * limit) if isinstance(limit, float) and count < math.inf else min(count, limit or count))


def total_steps(trainer: L.Trainer, data: L.LightningDataModule) -> float:
    """Optimizer steps until ``max_steps`` or ``max_epochs`` ends the run, whichever comes first; else inf."""
    per_epoch = math.ceil(batches_per_epoch(trainer, data) / trainer.accumulate_grad_batches)
    epochs = math.inf if trainer.max_epochs in (None, -1) else trainer.max_epochs * per_epoch
    return min(epochs, math.inf if trainer.max_steps == -1 else trainer.max_steps)
