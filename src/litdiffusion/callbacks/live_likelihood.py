"""The likelihood of a few validation items, measured during training."""

import warnings
from typing import Any

import lightning as L
import torch
from torch import Tensor

from litdiffusion.callbacks.pictures import evaluating, facts_for
from litdiffusion.diffusion.likelihood import are_bytes, bits_per_dimension, quick_nats
from litdiffusion.diffusion.likelihood.bits import BYTES
from litdiffusion.diffusion.seeding import fold_seed
from litdiffusion.errors import UserError
from litdiffusion.training import DiffusionModule
from litdiffusion.training.clock import Budget


class LiveLikelihood(L.Callback):
    """Measures ``-log p`` of the same first validation items with the averaged weights, at every validation.

    Logs ``likelihood/bits_per_dimension`` for images (per byte) or ``likelihood/nats`` for vectors (per item, in the
    units of the data). If the data distribution is known, ``likelihood/nats_best`` is its own value. See `quick_nats`
    for the measurement. Nothing is measured for a codec that leaves data space or for a single noise level. Nothing is
    measured either while the flow of an untrained net is too stiff to solve, which is warned of once.

    Args:
        items: number of validation items.
        steps: network calls per item on a discrete chain, approximately.
        max_share: largest share of the run's time; a measurement that would exceed it is left out, except the first.
        seed: seed of the noise.
        facts: facts about the data; None: those of the trainer's data module.
    """

    def __init__(
        self, items: int = 64, steps: int = 25, max_share: float | None = 0.05, seed: int = 0, facts: Any = None
    ):
        for name, value, least in (("items", items, 1), ("steps", steps, 2)):
            if value < least:
                raise UserError(f"callbacks.live_likelihood.{name} must be at least {least}, got {value}")
        self.items, self.steps, self.max_share, self.seed, self.facts = items, steps, max_share, seed, facts

    def on_fit_start(self, trainer: L.Trainer, pl_module: DiffusionModule) -> None:
        self._budget = Budget(pl_module.clock, "likelihood", self.max_share)
        self._warned = False

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: DiffusionModule) -> None:
        if trainer.sanity_checking or not pl_module.codec.in_data_space:
            return
        # The first process decides, because the clocks of processes differ.
        if not trainer.strategy.broadcast(self._budget.allows()):
            return
        with self._budget.spend():
            values = trainer.strategy.broadcast(
                self._values_or_warning(trainer, pl_module) if trainer.is_global_zero else {}
            )
        if values:
            pl_module.log_dict(values)

    def _values_or_warning(self, trainer: L.Trainer, module: DiffusionModule) -> dict[str, float]:
        try:
            return self._values(trainer, module)
        except UserError as error:
            if not self._warned:
                warnings.warn(f"no likelihood at step {trainer.global_step}: {error}", stacklevel=2)
            self._warned = True
            return {}

    @torch.no_grad()
    def _values(self, trainer: L.Trainer, module: DiffusionModule) -> dict[str, float]:
        facts = facts_for(self, trainer)
        items = facts.reference(self.items).to(module.device)
        x_0, log_units = module.codec.encode(items), module.codec.log_units(items)
        bytes = facts.value_range == BYTES and are_bytes(x_0)
        with evaluating(module):
            nats = quick_nats(
                module.sampling_denoiser(),
                x_0,
                bytes,
                self.steps,
                fold_seed(self.seed, "live_likelihood"),
                module.condition(facts.val, len(x_0)),
            )
        if nats is None:
            return {}
        if bytes:
            return {"likelihood/bits_per_dimension": bits_per_dimension(nats.mean(), x_0[0].numel()).item()}
        return {"likelihood/nats": nats.mean().item() + log_units, **self._best_nats(facts, items.cpu())}

    def _best_nats(self, facts: Any, x_0: Tensor) -> dict[str, float]:
        mixture = facts.mixture
        return {} if mixture is None else {"likelihood/nats_best": -mixture.log_density(x_0).mean().item()}
