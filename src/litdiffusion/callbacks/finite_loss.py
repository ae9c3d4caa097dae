"""Stops a run at its first non-finite loss, while the weights are still good."""

import lightning as L
import torch
from torch import Tensor

from litdiffusion.errors import TrainingError


class FiniteLoss(L.Callback):
    """Looks at the loss before the backward pass, so that no nan or infinity ever reaches the weights."""

    def on_before_backward(self, trainer: L.Trainer, pl_module: L.LightningModule, loss: Tensor) -> None:
        if not torch.isfinite(loss):
            raise TrainingError(
                f"the loss became {loss.item()} at step {trainer.global_step}; lower optimizer.lr or "
                f"gradient_clip, or take trainer.precision=32-true"
            )
