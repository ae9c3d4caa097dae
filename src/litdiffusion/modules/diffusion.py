"""The training of a denoiser, as Lightning hooks."""

from collections.abc import Callable
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn

from litdiffusion.denoisers import ClippedDenoiser, Denoiser
from litdiffusion.errors import UserError
from litdiffusion.modules.ema import EMA
from litdiffusion.modules.lr import Factor
from litdiffusion.modules.quartiles import quartile_means
from litdiffusion.objectives import DenoisingObjective, Losses
from litdiffusion.samplers import Sampler
from litdiffusion.seeding import fold_seed, seed_generators
from litdiffusion.types import Batch, seeded_noise


class DiffusionModule(L.LightningModule):
    """Trains ``denoiser`` on ``objective``; validates, samples and reports with the averaged weights.

    Args:
        denoiser: what is trained.
        objective: the loss of a batch.
        sampler: draws from the trained denoiser, for the callbacks and scripts.
        codec: between data and the space that the diffusion runs in.
        shape: of one sample in model space.
        optimizer: parameters -> optimizer.
        lr_schedule: total number of steps -> factor of the learning rate per step.
        ema_decay: of the weight average; 0 keeps the average equal to the weights.
        seed: with the step and the rank it determines every random number of a training step.
        clip: range that samples' x_0 is clamped to while sampling, or None.
        record: plain values stored in every checkpoint, enough to rebuild the denoiser and sampler from it.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        objective: DenoisingObjective,
        sampler: Sampler,
        codec: nn.Module,
        shape: tuple[int, ...],
        optimizer: Callable[[Any], torch.optim.Optimizer],
        lr_schedule: Callable[[int], Factor],
        ema_decay: float = 0.999,
        seed: int = 0,
        clip: tuple[float, float] | None = None,
        record: dict[str, Any] | None = None,
    ):
        super().__init__()
        self.denoiser = denoiser
        self.ema = EMA(denoiser, ema_decay)
        self.codec = codec
        self.objective = objective
        self.sampler = sampler
        self.shape = shape
        self.seed = seed
        self.record = record or {}
        self._optimizer = optimizer
        self._lr_schedule = lr_schedule
        self._clip = clip
        self._recent: list[Losses] = []

    def configure_optimizers(self) -> dict[str, Any]:
        optimizer = self._optimizer(self.denoiser.parameters())
        factor = self._lr_schedule(self.trainer.max_steps)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        step = self.global_step
        super().optimizer_step(*args, **kwargs)
        self.ema.update(self.denoiser, step)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        seed_generators(self.device, fold_seed(self.seed, batch_idx, self.global_rank))
        losses = self.objective(self.denoiser, self.codec.encode(batch.data))
        loss = losses.loss.mean()
        self._recent.append(Losses(*(field.detach() for field in losses)))
        if (batch_idx + 1) % self.trainer.log_every_n_steps == 0:
            self._log_training(loss)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        losses = self.objective(
            self.ema.model,
            self.codec.encode(batch.data),
            noise=seeded_noise(fold_seed(batch_idx, self.global_rank)),
            offset=torch.tensor(0.5, dtype=torch.float64, device=self.device),
        )
        values = {"val/loss": losses.loss.mean()} | {
            f"val/loss_{name}": mean for name, mean in quartile_means(losses.t, losses.loss).items()
        }
        self.log_dict(values, on_epoch=True, sync_dist=True, batch_size=len(losses.loss))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["litdiffusion"] = self.record

    def sampling_denoiser(self, weights: str = "ema") -> nn.Module:
        """The denoiser to sample from: the averaged ("ema") or the current ("raw") weights, clipped where asked."""
        choices = {"ema": self.ema.model, "raw": self.denoiser}
        if weights not in choices:
            raise UserError(f"weights must be ema or raw, got {weights!r}")
        return choices[weights] if self._clip is None else ClippedDenoiser(choices[weights], *self._clip)

    def _log_training(self, loss: Tensor) -> None:
        """The mean since the last log: logging every step would cost more than a small net's step itself."""
        recent = Losses(*(torch.cat(field) for field in zip(*self._recent, strict=True)))
        self._recent.clear()
        self.log("train/loss", recent.loss.mean(), prog_bar=True)
        self.log_dict({f"train/loss_{k}": v for k, v in quartile_means(recent.t, recent.loss).items()})
        self.log("train/learning_rate", self.trainer.optimizers[0].param_groups[0]["lr"])
