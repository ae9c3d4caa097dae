"""The plan of a run and its need of memory and disk, for ``dry_run=true`` and the check of the disk."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Checkpoint
from torch import Tensor

from litdiffusion.build import Experiment, Run
from litdiffusion.callbacks import PosthocEMA
from litdiffusion.config.checks import format_bytes
from litdiffusion.config.optimizer import make_optimizer, state_per_weight
from litdiffusion.config.shapes import DUMMY_ITEMS
from litdiffusion.training.length import batches_per_epoch, num_items, total_steps

PARTS = (
    *("data", "model", "codec", "schedule", "parameterization", "objective", "times", "weighting", "sampler"),
    *("optimizer", "lr_schedule", "metrics"),
)
ALLOWANCE, PER_TENSOR = 1.02, 320
"""Size of a checkpoint beyond its tensors: a factor for config and loop state, and bytes per tensor for its entry."""


@dataclass(frozen=True)
class Memory:
    """Bytes that one process needs; ``activations`` are those that one batch keeps for its gradient."""

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
    """Memory and disk that a run needs: bytes of a checkpoint, and how many checkpoints are ``kept``."""

    memory: Memory
    checkpoint: int
    kept: int
    beside: int = 0
    """Bytes of what callbacks keep beside the checkpoints."""

    @property
    def disk_use(self) -> str:
        """The disk space of the checkpoints in words, for a message."""
        kept = f"{self.kept} kept of {format_bytes(self.checkpoint)}"
        return f"the checkpoints of this run need {format_bytes(self.disk)} ({kept}, and one being written)"

    @property
    def disk(self) -> int:
        """Bytes of all kept checkpoints and one more, because a new one is written before the old one is removed."""
        return (self.checkpoint * (self.kept + 1) if self.kept else 0) + self.beside


def make_plan(experiment: Experiment) -> Plan:
    """Estimates the memory and disk that the run needs."""
    module, data = experiment.module, experiment.data
    batch_size = getattr(data, "batch_size", len(experiment.facts.train.data))
    weights = list(module.trained.parameters())
    state = round(state_per_weight(partial(make_optimizer, experiment.cfg.optimizer)) * _bytes(weights))
    memory = Memory(
        weights=_bytes(weights),
        gradients=_bytes(weight for weight in weights if weight.requires_grad),
        optimizer=state,
        average=_bytes(module.ema.parameters()),
        activations=experiment.dummy_output.activation_bytes * batch_size // DUMMY_ITEMS,
    )
    stored = list(module.state_dict().values())
    entries = PER_TENSOR * (len(stored) + 3 * len(weights))  # as of Adam: two averages and a step count per weight
    averages = [c for c in experiment.trainer.callbacks if isinstance(c, PosthocEMA)]
    count = sum(weight.numel() for weight in weights)
    state += sum(4 * len(callback.gammas) for callback in averages) * count
    beside = sum(callback.bytes_per_weight for callback in averages) * count
    return Plan(memory, round(ALLOWANCE * (_bytes(stored) + state)) + entries, _num_kept(experiment), beside)


def describe(experiment: Experiment, plan: Plan, run: Run) -> str:
    """The plan as lines of text, for ``dry_run=true``."""
    cfg, module, trainer, memory = experiment.cfg, experiment.module, experiment.trainer, plan.memory
    each = format_bytes(plan.checkpoint)
    rows = [(part, cfg[part]["_target_"]) for part in PARTS if cfg.get(part) and "_target_" in cfg[part]]
    rows += [
        ("parameters", f"{sum(p.numel() for p in module.trained.parameters()):,}"),
        ("items", f"{num_items(experiment.data, experiment.facts):,} of shape {tuple(experiment.facts.shape)}"),
        ("steps", _steps(experiment)),
        ("device", f"{trainer.world_size} x {trainer.strategy.root_device.type} in {cfg.derived.precision}"),
        ("memory", f"about {format_bytes(memory.total)} per process: {_by_kind(memory)}"),
        (
            "disk",
            f"about {format_bytes(plan.disk)}: {plan.kept} checkpoints of {each}, and one being written"
            + (f"; snapshots of at most {format_bytes(plan.beside)}" if plan.beside else ""),
        ),
        ("folder", str(run.dir)),
    ]
    return "\n".join(["plan of this run (nothing was trained or written)", *(f"  {a:<17}{b}" for a, b in rows)])


def leave_no_folder(folder: Path) -> None:
    """Removes the empty folder that Hydra made for the run, and up to two empty folders above it."""
    for path in (folder, folder.parent, folder.parent.parent):
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()


def _steps(experiment: Experiment) -> str:
    trainer, data = experiment.trainer, experiment.data
    batches, steps = batches_per_epoch(trainer, data), total_steps(trainer, data)
    windows = trainer.accumulate_grad_batches
    batch_size = getattr(data, "batch_size", None)
    each = "a batch" if batch_size is None else f"{batch_size * trainer.world_size} items"
    return f"{steps:,} of {windows} x {each}; {batches:,} batches per epoch, {steps * windows / batches:.1f} epochs"


def _by_kind(memory: Memory) -> str:
    return ", ".join(f"{name} {format_bytes(count)}" for name, count in vars(memory).items())


def _bytes(tensors: Iterable[Any]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors if isinstance(tensor, Tensor))


def _num_kept(experiment: Experiment) -> int:
    """How many checkpoints all callbacks together keep at the end of the run."""
    trainer: L.Trainer = experiment.trainer
    callbacks = trainer.checkpoint_callbacks
    return sum(getattr(callback, "kept", None) or _num_kept_by(callback, trainer) for callback in callbacks)


def _num_kept_by(callback: Checkpoint, trainer: L.Trainer) -> int:
    top = getattr(callback, "save_top_k", None)
    if top is None:
        return 1  # a user's own callback, which does not declare a number
    if top == -1:  # Lightning's ModelCheckpoint: all are kept
        interval = getattr(callback, "every_n_train_steps", None) or 1
        top = 1 if trainer.max_steps == -1 else math.ceil(trainer.max_steps / interval)
    return top + bool(callback.save_last)
