"""A batch that does not fit into memory: the line that says so, with the largest one that fits."""

import gc

import torch

from litdiffusion.build import Experiment
from litdiffusion.data.batch import Batch
from litdiffusion.data.loaders import take
from litdiffusion.errors import is_out_of_memory
from litdiffusion.training import TrainingModule


def too_large(experiment: Experiment) -> str:
    """The line for a training step that ran out of memory; tries smaller batches until the largest is known."""
    module, data = experiment.module, experiment.data
    size = getattr(data, "batch_size", None)
    device = module.device
    if size is None:
        return f"a batch does not fit into the memory of {device}; let the loader return smaller ones"
    fits = largest_batch(experiment, size)
    if fits == size:
        return (
            f"the memory of {device} is used up, though a training step of {size} items fits: draw and measure fewer "
            f"samples (callbacks.live_quality.samples, callbacks.trajectory), or set data.batch_size={size // 2 or 1}"
        )
    if fits == 0:
        return f"not even a batch of one item fits into the memory of {device}; take a smaller model"
    also = "" if experiment.cfg.gradient_checkpointing else ", or gradient_checkpointing=true"
    return (
        f"a batch of {size} items does not fit into the memory of {device}, {fits} do: set data.batch_size={fits} "
        f"(trainer.accumulate_grad_batches={-(-size // fits)} keeps the items of a step){also}"
    )


def largest_batch(experiment: Experiment, most: int) -> int:
    """The largest number of items, at most ``most``, whose loss and gradient fit; 0 if not even one does."""
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if _fits(experiment, middle) else (low, middle - 1)
    return low


def _fits(experiment: Experiment, count: int) -> bool:
    module, plugin = experiment.module, experiment.trainer.precision_plugin
    _free(module)
    try:
        with plugin.train_step_context():
            loss = module.training_step(_batch(experiment, count), 0)
        loss.backward()
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        return False
    finally:
        _free(module)
    return True


def _batch(experiment: Experiment, count: int) -> Batch:
    """The first ``count`` training items, repeated if fewer are known, on the module's device."""
    part = experiment.facts.train
    index = torch.arange(count) % len(part.data)
    return Batch(*(None if x is None else x.to(experiment.module.device) for x in take(part, index)))


def _free(module: TrainingModule) -> None:
    module.zero_grad(set_to_none=True)
    module.train_log.current.clear()
    gc.collect()
    if module.device.type == "cuda":
        torch.cuda.empty_cache()
