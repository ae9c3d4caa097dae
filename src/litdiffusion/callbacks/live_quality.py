"""The quality of samples, measured during training."""

import math
import warnings
from functools import partial
from typing import Any

import lightning as L
import torch
from torch import Tensor

from litdiffusion.callbacks.conditions import told_as_in_data
from litdiffusion.callbacks.pictures import evaluating, facts_for, limited_sampler
from litdiffusion.diffusion.levels import CLEAN, Level
from litdiffusion.diffusion.samplers import Draws, State
from litdiffusion.diffusion.seeding import fold_seed
from litdiffusion.errors import UserError
from litdiffusion.measure.quality import Quality, logged
from litdiffusion.runs.metric_goals import SPREAD
from litdiffusion.training import DiffusionModule
from litdiffusion.training.clock import Budget
from litdiffusion.training.conditions import class_column
from litdiffusion.training.evaluation import check_weights

BLOCK = {1: 500, 3: 32}
"""Number of samples drawn at once, by the number of dimensions of a sample: images take more memory than points."""


class LiveQuality(L.Callback):
    """Draws a few samples at every validation, always from the same noise, and measures them.

    Logs ``quality/<name>``, any of which can be the run's ``metric``, and ``quality/<headline>_spread``, the spread of
    the main one. Processes draw equal shares, and the samples do not depend on the number of processes. Samples that
    are not finite give NaN. Metrics that cannot be computed, e.g. when Inception's weights are missing, are named in
    one warning and left out of the run, unless a callback monitors them.

    Args:
        quality: the metrics; None: no metrics.
        samples: number of samples, at least 20; null: 2000 points, or 256 images or sequences.
        steps: largest number of network calls per sample.
        weights: "ema" or "raw".
        max_share: largest share of the run's time; a measurement that would exceed it is left out, except the first.
            None: no limit.
        seed: seed of the noise.
        facts: facts about the data; None: those of the trainer's data module.
        metric: the run's metric. If it is one of these metrics there is no limit of time, because a checkpoint must not
            be chosen by the value of earlier weights.
    """

    def __init__(
        self,
        quality: Quality | None,
        samples: int | None = None,
        steps: int | None = 50,
        weights: str = "ema",
        max_share: float | None = 0.1,
        seed: int = 0,
        facts: Any = None,
        metric: str = "",
    ):
        for name, value, least in (("samples", samples, 20), ("steps", steps, 2)):
            if value is not None and value < least:
                raise UserError(f"callbacks.live_quality.{name} must be at least {least}, got {value}")
        check_weights(weights, "callbacks.live_quality.weights")
        self.quality, self.samples, self.steps = quality, samples, steps
        self.weights, self.seed, self.facts = weights, seed, facts
        self.max_share = None if metric.startswith("quality/") else max_share
        self._last_headline = ""

    def on_fit_start(self, trainer: L.Trainer, pl_module: DiffusionModule) -> None:
        self._budget = Budget(pl_module.clock, "quality", self.max_share)

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: DiffusionModule) -> None:
        # The first process decides, because the clocks of processes differ.
        if self.quality is None or trainer.sanity_checking or not trainer.strategy.broadcast(self._budget.allows()):
            return
        with self._budget.spend():
            values, failure = self._values_or_failure(trainer, pl_module)
        if failure:
            self._switch_off(trainer, failure)
            return
        pl_module.log_dict(values)
        headline = f"quality/{self.quality.headline}"
        self._last_headline = f"{self.quality.headline} {values[headline]:.3f}" if headline in values else ""

    def summary(self) -> str:
        """One line for the end of a run; empty without a measurement."""
        if not self._last_headline:
            return ""
        return (
            f"live quality: {self._last_headline} at the last of {self._budget.done} measurements, "
            f"{100 * self._budget.share:.1f} % of the training time"
        )

    def _values_or_failure(self, trainer: L.Trainer, module: DiffusionModule) -> tuple[dict[str, float], str]:
        """The metrics, and the reason if they cannot be computed; the same on all processes."""
        count = self.samples or self.quality.live
        x, level, class_labels = self._draw_samples(trainer, module, count)
        values, failure = {}, ""
        if trainer.is_global_zero:
            try:
                values = self._values(x, level, class_labels)
            except UserError as error:
                failure = str(error)
        return trainer.strategy.broadcast((values, failure))

    def _values(self, x: Tensor, level: Level, class_labels: Tensor | None) -> dict[str, float]:
        if not x.isfinite().all():
            # NaN instead of no metric, because a callback may monitor one of them.
            return {f"quality/{name}": math.nan for name in (*self.quality.names, f"{self.quality.headline}{SPREAD}")}
        measured = self.quality.measure(x, level=level, class_labels=class_labels)
        return logged("quality", measured, self.quality.headline)

    def _switch_off(self, trainer: L.Trainer, reason: str) -> None:
        if any(str(getattr(callback, "monitor", None)).startswith("quality/") for callback in trainer.callbacks):
            raise UserError(reason)
        self.quality = None
        if trainer.is_global_zero:
            warnings.warn(f"this run goes on without live quality: {reason}", stacklevel=2)

    @torch.no_grad()
    def _draw_samples(
        self, trainer: L.Trainer, module: DiffusionModule, count: int
    ) -> tuple[Tensor, Level, Tensor | None]:
        """The first ``count`` samples in data space on the CPU, their noise level and their class labels."""
        size, world = min(count, BLOCK.get(len(module.shape), 32)), trainer.world_size
        each = math.ceil(count / (size * world))
        conditional = module.num_classes or module.conditions
        told = told_as_in_data(module, facts_for(self, trainer), count, self.seed) if conditional else None
        draws = module.draws(limited_sampler(module, self.steps), self.weights)
        seed = fold_seed(self.seed, "live_quality")
        block = partial(_block, draws, size=size, seed=seed, class_labels=told)
        class_labels = class_column(told, module.num_classes)
        with evaluating(module):
            ends = [block(k * world + trainer.global_rank) for k in range(each)]
        own_blocks = torch.stack([end.x for end in ends])  # (each, size, ...)
        # With several processes (world, each, size, ...): block k * world + rank lies at [rank, k].
        blocks = module.all_gather(own_blocks).transpose(0, 1) if world > 1 else own_blocks
        return blocks.reshape(-1, *own_blocks.shape[2:])[:count].cpu(), ends[-1].level, class_labels


def _block(draws: Draws, index: int, size: int, seed: int, class_labels: Tensor | None) -> State:
    """A block of samples; NaN if the flow cannot be solved yet."""
    try:
        return draws.block(index, size, seed, class_labels)
    except UserError as error:
        warnings.warn(str(error), stacklevel=2)
        return State(draws.decode(torch.full((size, *draws.shape), torch.nan, device=draws.device)), CLEAN)
