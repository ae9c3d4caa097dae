"""A picture of each continuous condition: samples while its value is swept."""

import re
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor

from litdiffusion.callbacks.conditions import told_in_turn
from litdiffusion.callbacks.pictures import display_range, facts_for, limited_sampler, save_picture, states_of
from litdiffusion.data import Facts
from litdiffusion.diffusion.seeding import fold_seed
from litdiffusion.errors import UserError
from litdiffusion.plots import sweep_picture
from litdiffusion.runs.dashboards import log_metrics
from litdiffusion.training import DiffusionModule
from litdiffusion.training.evaluation import check_weights

RANGE = (0.05, 0.95)
"""Quantiles of the training items between which a condition is swept."""
NEAR = 50
"""One in so many training items, the nearest to a value, stands for the data at this value."""


class ConditionSweep(L.Callback):
    """When training ends, draws samples at evenly spaced values of each continuous condition.

    The values run from the 5 % to the 95 % quantile of the training items. The noise is the same for all, and the
    other conditions and the classes are those of `told_in_turn`. Images give a sheet with a column per value and a row
    per noise; vectors give a panel per value above the training items nearest to it: ``pictures/condition_NAME.png``.
    A model without continuous conditions has no such picture.

    Where a condition can be computed of samples (the angle of a point, the mean grey of an image), the median over the
    samples at each value is printed beside the value, and ``samples/NAME_error`` is logged: the mean distance of a
    sample's own value from the one asked for, in deviations of the training items. 1.1 is that of samples which ignore
    a normally distributed condition.

    Args:
        run_dir: the run's folder.
        values: number of values.
        chains: images: number of rows.
        points: vectors: number of points in a panel.
        steps: largest number of network calls per sample; None: the sampler's own number.
        weights: "ema" or "raw".
        seed: seed of the noise.
        facts: facts about the data; None: those of the trainer's data module.
    """

    def __init__(
        self,
        run_dir: Path,
        values: int = 7,
        chains: int = 10,
        points: int = 1000,
        steps: int | None = 200,
        weights: str = "ema",
        seed: int = 0,
        facts: Any = None,
    ):
        for name, value, least in (("values", values, 2), ("chains", chains, 1), ("points", points, 2)):
            if value < least:
                raise UserError(f"callbacks.condition_sweep.{name} must be at least {least}, got {value}")
        check_weights(weights, "callbacks.condition_sweep.weights")
        self.run_dir, self.facts = run_dir, facts
        self.values, self.chains, self.points = values, chains, points
        self.steps, self.weights, self.seed = steps, weights, seed
        self._lines: list[str] = []

    def on_train_end(self, trainer: L.Trainer, pl_module: DiffusionModule) -> None:
        if trainer.is_global_zero and pl_module.conditions:
            with pl_module.clock("drawing"):
                for index, name in enumerate(pl_module.condition_names):
                    self._sweep(trainer, pl_module, index, name)

    def summary(self) -> str:
        """What was asked of each condition that can be computed of samples, and what they have; else empty."""
        return "; ".join(self._lines)

    def _sweep(self, trainer: L.Trainer, module: DiffusionModule, index: int, name: str) -> None:
        facts = facts_for(self, trainer)
        known = facts.train.conditions[:, index]
        ends = torch.quantile(known[: 2**24].double(), torch.tensor(RANGE, dtype=torch.float64))
        values = torch.linspace(*ends.tolist(), self.values).tolist()
        samples = [self._samples(module, facts, index, value) for value in values]
        images = samples[0].ndim == 4
        picture = sweep_picture(
            samples,
            [] if images else [_nearest(facts.train.data, known, value, self.points) for value in values],
            [f"{name} = {value:.3g}" for value in values],
            f"{name} swept, after {trainer.global_step} steps",
            display_range(facts),
        )
        file = f"condition_{re.sub(r'[^0-9A-Za-z]+', '_', name)}"
        save_picture(trainer, self.run_dir, file, picture, f"{file}.png")
        self._compare(trainer, facts, name, values, samples, module.conditions[index]["std"])

    def _samples(self, module: DiffusionModule, facts: Facts, index: int, value: float) -> Tensor:
        """Samples in data space that are told ``value``, of the same noise and the same other conditions for each."""
        seed = fold_seed(self.seed, "condition_sweep")
        count = self.chains if len(module.shape) == 3 else self.points
        told = told_in_turn(module, facts, count, seed).clone()
        told[:, (module.num_classes > 0) + index] = value
        return states_of(module, limited_sampler(module, self.steps), count, self.weights, seed, 1, told, facts)[-1].x

    def _compare(
        self, trainer: L.Trainer, facts: Facts, name: str, values: list[float], samples: list[Tensor], std: float
    ) -> None:
        compute = getattr(facts, "computed_conditions", dict)().get(name)
        if compute is None:
            return
        found = [compute(x) for x in samples]
        error = torch.stack([(own - value).abs().mean() for own, value in zip(found, values, strict=True)]).mean() / std
        log_metrics(trainer, {f"samples/{name}_error": error.item()})
        pairs = ", ".join(f"{value:.3g}: {own.median():.3g}" for own, value in zip(found, values, strict=True))
        self._lines.append(f"{name} asked for and median of the samples: {pairs}; mean error {error:.2f} deviations")


def _nearest(data: Tensor, known: Tensor, value: float, most: int) -> Tensor:
    """The training items (m, d) whose condition ``known`` (N,) is nearest to ``value``."""
    count = min(most, max(2, len(known) // NEAR))
    return data[(known - value).abs().topk(count, largest=False).indices]
