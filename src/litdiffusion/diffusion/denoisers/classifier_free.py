"""Classifier-free guidance: away from the prediction without a class."""

from collections.abc import Sequence

import torch
from torch import Tensor

from litdiffusion.diffusion.denoisers.guidance import Guidance, extrapolated
from litdiffusion.diffusion.denoisers.interface import AnyDenoiser
from litdiffusion.diffusion.denoisers.wrapper import with_x_0
from litdiffusion.diffusion.levels import Level, Prediction
from litdiffusion.errors import UserError


class ClassifierFreeGuidance(Guidance):
    """``x_0 = x_0(x_t) + weight * (x_0(x_t, class) - x_0(x_t))``, and the same for eps.

    weight = 1 is the conditional denoiser, weight = 0 the unconditional one. For weight > 1 the score at each level is
    that of ``p(x_t | class) * p(class | x_t)^(weight - 1)``; these densities are not the noised versions of a single
    density. Costs two calls of the denoiser; one without a class, with weight = 1 or outside the interval.

    With ``rescale`` = phi the guided x_0 of each item is multiplied by ``phi * std(x_0(x_t, class)) / std(x_0) + 1 -
    phi``, std over all values of the item, and eps follows. phi = 0 changes nothing, phi = 1 restores the std of the
    conditional prediction: large weights raise it, which shows as overexposed images.

    Args:
        denoiser: one trained with and without class labels (``conditional=true``, class_dropout > 0);
            ``class_label=None`` is the unconditional prediction.
        weight, interval: see `Guidance`. (The source's w is weight - 1.)
        rescale: phi in [0, 1]; 0.7 is the source's. Needs items of several values, and sigma > 0.

    Raises:
        UserError: see `Guidance`; ``rescale`` out of range.

    Source: Ho, Salimans, "Classifier-Free Diffusion Guidance", 2022, arXiv 2207.12598, equation 6; rescale: Lin, Liu,
    Li, Yang, "Common Diffusion Noise Schedules and Sample Steps are Flawed", 2023, arXiv 2305.08891, section 3.4.
    """

    needs_null_class = True
    always = False

    def __init__(
        self, denoiser: AnyDenoiser, weight: float, interval: Sequence[float] | None = None, rescale: float = 0.0
    ):
        super().__init__(denoiser, weight, interval)
        if not 0 <= rescale <= 1:
            raise UserError(f"guide.rescale must lie in [0, 1], got {rescale}; 0 is none")
        self.rescale = rescale

    def correct(self, prediction: Prediction, x_t: Tensor, level: Level, class_label: Tensor | None) -> Prediction:
        weight = self.weight_at(level)
        if class_label is None or bool((weight == 1).all()):
            return prediction
        guided = extrapolated(self.denoiser(x_t, level), prediction, weight)
        return self._rescaled(guided, prediction, x_t, level) if self.rescale else guided

    def _rescaled(self, guided: Prediction, prediction: Prediction, x_t: Tensor, level: Level) -> Prediction:
        now, before = (_std(part.x_0) for part in (guided, prediction))
        factor = torch.where(now > 0, before / now, 1.0)  # an item of one value has no std
        return with_x_0(guided, guided.x_0 * (1 + self.rescale * (factor - 1)), x_t, level)


def _std(x: Tensor) -> Tensor:
    """The std of the values of each item, (B, 1, ..., 1)."""
    return x.std(dim=tuple(range(1, x.ndim)), correction=0, keepdim=True)
