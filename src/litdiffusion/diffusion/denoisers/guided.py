"""Guidance: samples that follow their class more closely than the data do."""

import torch
from torch import Tensor, nn

from litdiffusion.diffusion.denoisers.wrapper import DenoiserWrapper
from litdiffusion.diffusion.gaussian import mix
from litdiffusion.diffusion.levels import Level, Prediction
from litdiffusion.errors import UserError


class GuidedDenoiser(DenoiserWrapper):
    """Classifier-free guidance: ``x_0 = x_0(x_t) + weight * (x_0(x_t, class) - x_0(x_t))``, and the same for eps.

    The weights of the two predictions sum to 1, so x_0 and eps still satisfy ``x_t = alpha * x_0 + sigma * eps``.
    weight = 1 is the conditional denoiser, weight = 0 the unconditional one. For weight > 1 the score at each level is
    that of ``p(x_t | class) * p(class | x_t)^(weight - 1)``; these densities are not the noised versions of a single
    density. Costs two calls of the denoiser, or one without a class or with weight = 1. The learned variance is that of
    the conditional denoiser. Clip outside of guidance, not inside.

    Args:
        denoiser: one trained with and without class labels (``conditional=true``, class_dropout > 0);
            ``class_label=None`` is the unconditional prediction.
        weight: finite; 1 to 10 are usual. (The source's w is weight - 1.)

    Raises:
        UserError: for a weight that is not finite.

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
        unconditional = self.denoiser(x_t, level)
        x_0 = mix(1 - self.weight, unconditional.x_0, self.weight, prediction.x_0)
        eps = mix(1 - self.weight, unconditional.eps, self.weight, prediction.eps)
        return prediction._replace(x_0=x_0, eps=eps)
