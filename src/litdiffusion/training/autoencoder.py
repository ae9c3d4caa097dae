"""Training of an autoencoder, as Lightning hooks."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from litdiffusion.codecs import Identity, ReconstructionLosses, ReconstructionObjective
from litdiffusion.data.augment import Augment
from litdiffusion.data.base import as_batch
from litdiffusion.parts.described import description as described
from litdiffusion.training.base import MakeOptimizer, MakeSchedule, TrainingModule
from litdiffusion.training.ema import EMA
from litdiffusion.training.items import check_not_empty, check_shape
from litdiffusion.training.optimizers import NetAdamW


class AutoencoderModule(TrainingModule[ReconstructionLosses]):
    """Trains an autoencoder on ``objective``; validates with the averaged weights and without noise in the latent.

    A batch is a tensor x (B, *shape), a pair (x, class label) or a `Batch`; bytes are read as images in [-1, 1]. The
    validation logs ``val/loss`` and its parts, ``val/reconstruction`` (mean square error), ``val/kl``, and
    ``val/latent_std``, the deviation of the latents' means over items and coordinates.

    Args:
        autoencoder: network with ``encode`` and ``decode``, see `litdiffusion.nets.Autoencoder`.
        objective: the loss of a batch.
        shape: shape of one item.
        value_range: range of the data, or None.
        optimizer, lr_schedule, ema_decay, seed, augment, skip_nonfinite, description: see `DiffusionModule`.
    """

    def __init__(
        self,
        autoencoder: nn.Module,
        objective: ReconstructionObjective,
        shape: Sequence[int],
        value_range: tuple[float, float] | None = None,
        optimizer: MakeOptimizer = NetAdamW,
        lr_schedule: MakeSchedule | None = None,
        ema_decay: float = 0.999,
        seed: int = 0,
        augment: Augment | None = None,
        skip_nonfinite: int = 0,
        description: dict[str, Any] | None = None,
    ):
        super().__init__(ReconstructionLosses, optimizer, lr_schedule, seed, augment, skip_nonfinite)
        self.autoencoder = autoencoder
        self.ema = EMA(autoencoder, ema_decay)
        self.objective = objective
        self.shape, self.num_classes, self.class_names, self.conditions = tuple(shape), 0, [], []
        self.codec = Identity()
        config = {"model": described(autoencoder), "objective": described(objective), "ema_decay": ema_decay}
        config |= {"seed": seed, "derived": {"shape": list(self.shape), "num_classes": 0}}
        self.description = description or {"config": config, "value_range": value_range}

    @property
    def trained(self) -> nn.Module:
        return self.autoencoder

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        draws = self.seed_step(batch_idx)
        x = self._items(self.augmented(as_batch(batch), batch_idx).data, f"training batch {batch_idx}")
        losses = self.objective(self.autoencoder, x, draws.normal)
        self.train_log.add(losses)
        return losses.mean()

    def means(self, losses: ReconstructionLosses) -> dict[str, Tensor]:
        means = {f"train/{name}": value.mean() for name, value in _named(losses).items()}
        return {name: self.trainer.strategy.reduce(value, reduce_op="mean") for name, value in means.items()}

    def on_validation_epoch_start(self) -> None:
        self._sums: dict[str, Tensor] = {}

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        x = self._items(as_batch(batch).data, f"validation or test batch {batch_idx}")
        latent = self.ema.model.encode(x).chunk(2, dim=1)[0].float().flatten(1)
        values = _named(self.objective(self.ema.model, x, noise=None))
        values |= {
            "latent": latent.mean(1),
            "latent_square": latent.square().mean(1),
            "count": torch.ones(len(x)).to(latent),
        }
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0) + value.double().sum()

    def on_validation_epoch_end(self) -> None:
        self._log_means("val")

    def on_test_epoch_start(self) -> None:
        self.on_validation_epoch_start()

    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        self.validation_step(batch, batch_idx, dataloader_idx)

    def on_test_epoch_end(self) -> None:
        self._log_means("test")

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        """The reconstructions of the batch's items, with the averaged weights."""
        return self.reconstructed(as_batch(batch).data)

    def reconstructed(self, x: Tensor) -> Tensor:
        """Items x (B, *shape) after encoding and decoding with the averaged weights, in their dtype."""
        return self.ema.model(self._items(x, "the batch")).to(x.dtype)

    def _items(self, x: Tensor, name: str) -> Tensor:
        check_not_empty(x, name)
        check_shape(x, self.shape, name)
        return x.to(self.device)

    def _log_means(self, part: str) -> None:
        names = list(self._sums)
        sums = self.trainer.strategy.reduce(torch.stack([self._sums[name] for name in names]), reduce_op="sum")
        means = dict(zip(names, sums.float(), strict=True))
        count = means.pop("count")
        means = {name: value / count for name, value in means.items()}
        variance = means.pop("latent_square") - means.pop("latent") ** 2
        self.log_dict({f"{part}/{name}": value for name, value in {**means, "latent_std": variance.sqrt()}.items()})


def _named(losses: ReconstructionLosses) -> dict[str, Tensor]:
    """The parts of the losses by their names in the log."""
    named = {"loss": losses.value, **losses._asdict()}
    return {name: value for name, value in named.items() if name != "value" and value is not None}
