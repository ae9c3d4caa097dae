"""Lightning's ``validate``, ``test`` and ``predict`` for a trained denoiser: losses and samples."""

from collections.abc import Callable
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn

from litdiffusion.codecs import Codec
from litdiffusion.data.base import as_batch
from litdiffusion.data.batch import Batch
from litdiffusion.diffusion.denoisers import ClippedDenoiser, Denoiser, ExactOutput
from litdiffusion.diffusion.levels import Noise, per_sample_noise, seeded_noise
from litdiffusion.diffusion.objectives import DenoisingObjective, Losses
from litdiffusion.diffusion.samplers import Draws, Sampler
from litdiffusion.diffusion.seeding import fold_seed
from litdiffusion.errors import UserError
from litdiffusion.training.class_labels import checked_class_labels
from litdiffusion.training.conditions import condition_of
from litdiffusion.training.ema import EMA
from litdiffusion.training.items import check_not_empty, check_shape
from litdiffusion.training.joined import place_of
from litdiffusion.training.late import LateChecks
from litdiffusion.training.quartiles import quartile_means, sums_by_quartile


def check_weights(weights: str, key: str = "weights") -> None:
    """Refuses a name of weights that is neither "ema" nor "raw"; ``key`` is the name in the message."""
    if weights not in ("ema", "raw"):
        raise UserError(f"{key} must be ema or raw, got {weights!r}")


class Evaluation(L.LightningModule):
    """The half of `DiffusionModule` that changes no weight; the subclass's constructor sets these attributes."""

    denoiser: Denoiser
    ema: EMA
    codec: Codec
    objective: DenoisingObjective
    sampler: Sampler
    shape: tuple[int, ...]
    seed: int
    late: LateChecks
    num_classes: int
    class_names: list[str]
    conditions: list[dict[str, Any]]
    guidance: float
    _guide: Callable[[nn.Module, float], nn.Module]
    _clip: tuple[float, float] | None
    _exact_output: list[ExactOutput]

    def on_validation_epoch_start(self) -> None:
        self._loss_sums, self._best_loss_sums = torch.zeros(2, 2, 4, device=self.device)

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Adds the losses of a batch to the sums of the epoch, over all loaders."""
        batch = as_batch(batch)
        x_0, class_label = self.encoded(batch, f"validation or test batch {batch_idx}"), self.condition(batch)
        seed, joined = fold_seed(0, "validation", batch_idx, 0, dataloader_idx), place_of(self)
        options = {"offset": (joined.rank + 0.5) / joined.world}
        losses = self.objective(self.ema.model, x_0, class_label, joined.rows(seeded_noise(seed)), **options)
        self._loss_sums += self._sums_by_quartile(losses)
        if self._exact_output and not self.denoiser.learned_variance:  # the same noise, so that both losses compare
            best = self.objective(*self._exact_output, x_0, None, joined.rows(seeded_noise(seed)), **options)
            self._best_loss_sums += self._sums_by_quartile(best)

    def on_validation_epoch_end(self) -> None:
        self._log_losses("val")

    def on_test_epoch_start(self) -> None:
        self.on_validation_epoch_start()

    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        self.validation_step(batch, batch_idx, dataloader_idx)

    def on_test_epoch_end(self) -> None:
        self._log_losses("test")

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        """One sample in data space for each item of the batch; a conditional model draws the item's class."""
        batch = as_batch(batch)
        batch_seed = fold_seed(self.seed, "predict", self.global_rank, batch_idx, dataloader_idx)
        noise = per_sample_noise([batch_seed + i for i in range(len(batch.data))])
        return self.draw(len(batch.data), noise, self.condition(batch))

    def draw(self, count: int, noise: Noise, class_label: Tensor | None = None, weights: str = "ema") -> Tensor:
        """``count`` samples in data space, in float32."""
        return self.draws(weights=weights).states(count, noise, class_label)[-1].x

    def draws(self, sampler: Sampler | None = None, weights: str = "ema") -> Draws:
        """The guided `Draws` of the "ema" or "raw" weights with the given sampler, or else the module's own."""
        denoiser = self.sampling_denoiser(weights, self.guidance)
        return Draws(sampler or self.sampler, denoiser, self.shape, self.codec.decode, self.device)

    def encoded(self, batch: Batch, name: str) -> Tensor:
        """The items of a batch in model space (B, *shape); ``name`` is the batch's name in messages.

        Raises:
            UserError: an empty batch, or items of another shape.
        """
        check_not_empty(batch.data, name)
        if batch.latent is not None:
            return batch.latent.to(self.device)
        data = batch.data.to(self.device)  # Lightning does not move arrays of NumPy
        misshapen = self.codec.in_data_space and data.shape[1:] != self.shape
        x_0 = data if misshapen else self.codec.encode(data)
        check_shape(x_0, self.shape, name)
        return x_0

    def condition(self, batch: Batch, count: int | None = None) -> Tensor | None:
        """What the net is told of the first ``count`` items, or of all; None for an unconditional model.

        Class labels (B,), or with continuous conditions the columns (B, C) of `condition_of`.
        """
        if self.conditions:
            told = condition_of(batch, self.num_classes, self.condition_names, self.late)
        elif self.num_classes:
            told = checked_class_labels(batch.class_label, self.num_classes, self.late)
        else:
            return None
        if not self.training:
            self.late.flush()
        return told[:count].to(self.device)

    @property
    def condition_names(self) -> list[str]:
        """Names of the continuous conditions, in the order of their columns."""
        return [scale["name"] for scale in self.conditions]

    def sampling_denoiser(self, weights: str = "ema", guidance: float = 1.0) -> nn.Module:
        """The denoiser with averaged ("ema") or current ("raw") weights, guided with this weight (1: not guided).

        It is clipped if the module has a ``clip`` range.
        """
        check_weights(weights)
        chosen = self.ema.model if weights == "ema" else self.denoiser
        chosen = chosen if guidance == 1 else self._guide(chosen, guidance).to(self.device)
        return chosen if self._clip is None else ClippedDenoiser(chosen, *self._clip)

    @property
    def exact_denoiser(self) -> nn.Module | None:
        """The exact denoiser of the data distribution; None if it is unknown."""
        return self._exact_output[0].denoiser if self._exact_output else None

    def _sums_by_quartile(self, losses: Losses) -> Tensor:
        return sums_by_quartile(losses, self.denoiser.schedule.place)

    def _log_losses(self, part: str) -> None:
        values = quartile_means(self.trainer.strategy.reduce(self._loss_sums, reduce_op="sum"), f"{part}/loss")
        if self._exact_output and not self.denoiser.learned_variance:
            best = self.trainer.strategy.reduce(self._best_loss_sums, reduce_op="sum")
            values |= quartile_means(best, f"{part}/best_loss")
        self.log_dict(values)
