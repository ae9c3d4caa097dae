"""What a run will be and need, known before its first step: the lines of ``dry_run=true``, and room on the disk."""

import math
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.utilities.data import sized_len
from lightning.pytorch.callbacks import Checkpoint
from omegaconf import DictConfig
from torch import Tensor, nn

from litdiffusion.build import Experiment, Run, make_lr_schedule, make_optimizer
from litdiffusion.config.shapes import TWO, check_shapes
from litdiffusion.data import DataModule
from litdiffusion.errors import UserError

PARTS = (
    *("data", "model", "codec", "schedule", "parameterization", "times", "weighting", "sampler"),
    *("optimizer", "lr_schedule", "metrics"),
)
ALLOWANCE, PER_TENSOR = 1.02, 320
"""Beside the numbers of a checkpoint: a share for the config and the loops' state; bytes of each tensor's own entry."""


@dataclass(frozen=True)
class Memory:
    """Bytes of one process, by what they hold; ``activations`` is what one batch keeps for its gradient."""

    weights: int
    gradients: int
    optimizer: int
    average: int
    activations: int

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimizer + self.average + self.activations


@dataclass(frozen=True)
class Plan:
    """What a run needs, in bytes, beside the experiment that it is about."""

    memory: Memory
    checkpoint: int
    kept: int

    @property
    def disk(self) -> int:
        """One more than is kept: a checkpoint is whole before the one that it replaces goes."""
        return self.checkpoint * (self.kept + 1) if self.kept else 0


def make_plan(cfg: DictConfig, experiment: Experiment) -> Plan:
    """Checks that the parts fit each other (`check_shapes`) and estimates what the run needs.

    Raises:
        UserError: parts whose shapes do not fit.
    """
    module, data = experiment.module, experiment.data
    answer = check_shapes(module, experiment.facts)
    weights = list(module.denoiser.parameters())
    state = round(_state(cfg, experiment) * _bytes(weights))
    memory = Memory(
        weights=_bytes(weights),
        gradients=_bytes(weight for weight in weights if weight.requires_grad),
        optimizer=state,
        average=_bytes(module.ema.parameters()),
        activations=answer.kept * getattr(data, "batch_size", len(experiment.facts.train.data)) // TWO,
    )
    stored = list(module.state_dict().values())
    entries = PER_TENSOR * (len(stored) + 3 * len(weights))  # Adam's: two averages and a step for each weight
    return Plan(memory, round(ALLOWANCE * (_bytes(stored) + state)) + entries, _kept(experiment))


def _state(cfg: DictConfig, experiment: Experiment) -> float:
    """Numbers per weight; what optimizer and learning rate refuse, they refuse only when they are called."""
    part = "optimizer"
    try:
        trial = make_optimizer(cfg.optimizer, experiment.module.denoiser)
        state = state_per_weight(partial(make_optimizer, cfg.optimizer))
        part = "lr_schedule"
        if cfg.get(part):
            make_lr_schedule(cfg.lr_schedule, trial, total_steps(experiment))
    except UserError:
        raise
    except Exception as error:  # constructors may refuse their arguments by whatever they like
        raise UserError(f"{part}: {' '.join(str(error).split())}; see conf/{part} for values that fit") from error
    return state


def state_per_weight(optimizer: Callable[[nn.Module], torch.optim.Optimizer]) -> float:
    """Numbers that an optimizer remembers per weight (Adam 2, plain SGD 0), seen after one step of 32 x 32 weights.

    One that was written for the run's own net, and cannot be made of a single layer, counts as Adam.
    """
    net = nn.Linear(32, 32, bias=False)
    weight = net.weight
    weight.grad = torch.ones_like(weight)
    try:
        trial = optimizer(net)
    except Exception:
        return 2.0
    trial.step(lambda: weight.sum())  # of a loss that some ask for again (LBFGS)
    tensors = [value for value in trial.state[weight].values() if isinstance(value, Tensor) and value.numel() > 1]
    return sum(tensor.numel() for tensor in tensors) / weight.numel()


def check_room(plan: Plan, folder: Path) -> None:
    """Refuses a run whose checkpoints have no room on the disk of ``folder``.

    Raises:
        UserError: what is needed and what is free.
    """
    free = shutil.disk_usage(next(path for path in (folder, *folder.absolute().parents) if path.exists())).free
    if plan.disk > free:
        raise UserError(
            f"the checkpoints of this run need {size(plan.disk)} ({plan.kept} kept of {size(plan.checkpoint)}, and one "
            f"being written), the disk of {folder} has {size(free)} free; make room, set hydra.run.dir to another "
            f"disk, or keep fewer (callbacks.best=null)"
        )


def describe(cfg: DictConfig, experiment: Experiment, plan: Plan, run: Run) -> str:
    """The plan in plain lines, for ``dry_run=true``."""
    module, trainer, memory = experiment.module, experiment.trainer, plan.memory
    rows = [(part, cfg[part]["_target_"]) for part in PARTS if cfg.get(part) and "_target_" in cfg[part]]
    rows += [
        ("parameters", f"{sum(p.numel() for p in module.denoiser.parameters()):,}"),
        ("items", f"{items(experiment):,} of shape {tuple(experiment.facts.shape)}"),
        ("steps", _steps(experiment)),
        ("device", f"{trainer.world_size} x {trainer.strategy.root_device.type} in {cfg.trainer.precision}"),
        ("memory", f"about {size(memory.total)} per process: {_by_kind(memory)}"),
        ("disk", f"about {size(plan.disk)}: {plan.kept} checkpoints of {size(plan.checkpoint)}, and one being written"),
        ("folder", str(run.dir)),
    ]
    return "\n".join(["plan of this run (nothing was trained or written)", *(f"  {a:<17}{b}" for a, b in rows)])


def leave_no_folder(folder: Path) -> None:
    """Removes the folder that Hydra made for the run, and those that it made above it, where they are empty."""
    for path in (folder, folder.parent, folder.parent.parent):
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()


def size(count: int) -> str:
    """Bytes in the unit that a person would choose: 1536 -> 1.5 kB (of 1024 bytes each)."""
    unit = min(int(math.log(count, 1024)), 4) if count else 0
    return f"{count / 1024**unit:.{1 if unit else 0}f} {('B', 'kB', 'MB', 'GB', 'TB')[unit]}"


def _steps(experiment: Experiment) -> str:
    trainer, batches = experiment.trainer, batches_per_epoch(experiment)
    steps, windows = total_steps(experiment), trainer.accumulate_grad_batches
    size = getattr(experiment.data, "batch_size", None)
    each = "a batch" if size is None else f"{size * trainer.world_size} items"
    return f"{steps:,} of {windows} x {each}; {batches:,} batches per epoch, {steps * windows / batches:.1f} epochs"


def items(experiment: Experiment) -> int:
    """How many items are trained on, as far as the data say."""
    data = experiment.data
    if isinstance(data, DataModule):
        return len(data.train.data)
    count = sized_len(getattr(data.train_dataloader(), "dataset", None))
    return len(experiment.facts.train.data) if count is None else count


def batches_per_epoch(experiment: Experiment) -> float:
    """Of one process; inf where the loader has no length."""
    data, limit = experiment.data, experiment.trainer.overfit_batches or experiment.trainer.limit_train_batches
    if isinstance(data, DataModule):
        whole = len(data.train.data) // (data.batch_size * experiment.trainer.world_size)
    else:
        length = sized_len(data.train_dataloader())
        whole = math.inf if length is None else length
    return max(1, int(whole * limit) if isinstance(limit, float) and whole < math.inf else min(whole, limit or whole))


def total_steps(experiment: Experiment) -> float:
    """Steps of the optimizer until ``max_steps`` or ``max_epochs`` ends the run, whichever comes first."""
    trainer = experiment.trainer
    windows = math.ceil(batches_per_epoch(experiment) / trainer.accumulate_grad_batches)
    epochs = math.inf if trainer.max_epochs in (None, -1) else trainer.max_epochs * windows
    return min(epochs, math.inf if trainer.max_steps == -1 else trainer.max_steps)


def _by_kind(memory: Memory) -> str:
    return ", ".join(f"{name} {size(count)}" for name, count in vars(memory).items())


def _bytes(tensors: Iterable[Any]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors if isinstance(tensor, Tensor))


def _kept(experiment: Experiment) -> int:
    """Checkpoints that lie in the folder at the end, over all callbacks that write some."""
    trainer: L.Trainer = experiment.trainer
    callbacks = trainer.checkpoint_callbacks
    return sum(getattr(callback, "kept", None) or _of(callback, trainer) for callback in callbacks)


def _of(callback: Checkpoint, trainer: L.Trainer) -> int:
    top = getattr(callback, "save_top_k", None)
    if top is None:
        return 1  # a callback of the user's own, which says nothing
    if top == -1:  # Lightning's: every one
        interval = getattr(callback, "every_n_train_steps", None) or 1
        top = 1 if trainer.max_steps == -1 else math.ceil(trainer.max_steps / interval)
    return top + bool(callback.save_last)
