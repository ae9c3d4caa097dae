"""Guidance: follow the condition more closely than the data do."""

import torch
from torch import Tensor, nn

from litdiffusion.diffusion.denoisers.wrapper import DenoiserWrapper
from litdiffusion.diffusion.gaussian import mix
from litdiffusion.diffusion.levels import Level, Prediction
from litdiffusion.errors import UserError


class GuidedDenoiser(DenoiserWrapper):
    """Classifier-free guidance: ``x_0 = x_0(x_t) + weight * (x_0(x_t, cond) - x_0(x_t))``, and eps alike.

    Both weights add up to 1, so the pair still explains x_t. weight = 1 is the conditional denoiser, 0 the
    unconditional one. Beyond 1 the score is that of ``p(x_t | cond) * p(cond | x_t)^(weight - 1)`` at every level,
    which is not one density noised. Costs two calls of the denoiser; one without a condition, or at weight = 1. The
    spread of a learned variance is the conditional one. Clipping goes around it, not inside.

    Args:
        denoiser: one that was trained with and without conditions, and takes ``cond=None`` for without.
        weight: finite; 1 to 10 are usual. (The source's w is weight - 1.)

    Raises:
        UserError: a weight that is not finite.

    The MLP and the U-Net of this project learn both from ``conditional=true`` with a label_dropout above 0.

    Source: Ho, Salimans, "Classifier-Free Diffusion Guidance", 2022, arXiv 2207.12598, equation 6.
    """

    def __init__(self, denoiser: nn.Module, weight: float):
        super().__init__(denoiser)
        if not -float("inf") < weight < float("inf"):
            raise UserError(f"the guidance weight must be a finite number, got {weight}; 1 to 10 are usual")
        self.weight = torch.as_tensor(weight, dtype=torch.float64)

    def correct(self, prediction: Prediction, x_t: Tensor, level: Level, cond: Tensor | None) -> Prediction:
        if cond is None or self.weight == 1:
            return prediction
        free = self.denoiser(x_t, level)
        x_0 = mix(1 - self.weight, free.x_0, self.weight, prediction.x_0)
        return prediction._replace(x_0=x_0, eps=mix(1 - self.weight, free.eps, self.weight, prediction.eps))
