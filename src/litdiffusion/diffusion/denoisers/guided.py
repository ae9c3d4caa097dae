"""Guidance: follow the condition more closely than the data do."""

import torch
from torch import Tensor, nn

from litdiffusion.diffusion.denoisers.wrapper import DenoiserWrapper
from litdiffusion.diffusion.gaussian import mix
from litdiffusion.diffusion.levels import Level, Prediction
from litdiffusion.errors import UserError


class GuidedDenoiser(DenoiserWrapper):
    """Classifier-free guidance: ``x_0 = x_0(x_t) + weight * (x_0(x_t, class) - x_0(x_t))``, and eps alike.

    The two weights sum to 1, so the pair still explains x_t. weight = 1 is the conditional denoiser, 0 the
    unconditional one. Above 1 the score is that of ``p(x_t | class) * p(class | x_t)^(weight - 1)`` at every level;
    these laws are not one density with growing noise. It costs two calls of the denoiser, and one where there is no
    class or weight = 1. A learned variance is that of the conditional denoiser. Clip outside of guidance, not inside.

    Args:
        denoiser: one that was trained with and without classes, and takes ``class_label=None`` for without.
        weight: finite; 1 to 10 are usual. (The source's w is weight - 1.)

    Raises:
        UserError: a weight that is not finite.

    The MLP and the U-Net of this project learn both from ``conditional=true`` with a class_dropout above 0.

    Source: Ho, Salimans, "Classifier-Free Diffusion Guidance", 2022, arXiv 2207.12598, equation 6.
    """

    def __init__(self, denoiser: nn.Module, weight: float):
        super().__init__(denoiser)
        if not -float("inf") < weight < float("inf"):
            raise UserError(f"the guidance weight must be a finite number, got {weight}; 1 to 10 are usual")
        self.weight = torch.as_tensor(weight, dtype=torch.float64)

    def correct(self, prediction: Prediction, x_t: Tensor, level: Level, class_label: Tensor | None) -> Prediction:
        if class_label is None or self.weight == 1:
            return prediction
        free = self.denoiser(x_t, level)
        x_0 = mix(1 - self.weight, free.x_0, self.weight, prediction.x_0)
        return prediction._replace(x_0=x_0, eps=mix(1 - self.weight, free.eps, self.weight, prediction.eps))
