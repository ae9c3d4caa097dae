"""The denoising loss of a batch."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from litdiffusion.diffusion.denoisers import Denoiser
from litdiffusion.diffusion.gaussian import diffuse
from litdiffusion.diffusion.levels import Level, Noise
from litdiffusion.diffusion.times import TimeSampler
from litdiffusion.diffusion.weightings import Weighting
from litdiffusion.errors import UserError
from litdiffusion.parts.described import Described


class Losses(NamedTuple):
    """Per sample, each of shape (B,): the weighted loss ``value`` and its time ``t``.

    ``importance`` is the weight of each sample under non-uniform times, or None (see `TimeSampler.importance`).
    """

    value: Tensor
    t: Tensor
    importance: Tensor | None = None

    def mean(self) -> Tensor:
        """The loss of the batch."""
        return self.value.mean() if self.importance is None else (self.value * self.importance).mean()

    def detach(self) -> "Losses":
        """The same losses without gradients."""
        importance = None if self.importance is None else self.importance.detach()
        return Losses(self.value.detach(), self.t.detach(), importance)


class DenoisingObjective(Described, nn.Module):
    """``w(t) * |out(x_t, t) - target|²``, averaged over coordinates, at one random time and noise per sample.

    Source: Ho, Jain, Abbeel, "Denoising Diffusion Probabilistic Models", 2020, arXiv 2006.11239, algorithm 1.
    """

    def __init__(self, times: TimeSampler, weighting: Weighting):
        super().__init__()
        self.times = times
        self.weighting = weighting

    def forward(
        self,
        denoiser: Denoiser,
        x_0: Tensor,
        class_label: Tensor | None = None,
        noise: Noise = torch.randn_like,
        offset: Tensor | float | None = None,
    ) -> Losses:
        """The losses of data x_0 (B, ...); a given ``noise`` and ``offset`` make them reproducible."""
        level = self.times.draw(x_0, offset)
        eps = noise(x_0)
        x_t = diffuse(x_0, eps, level)
        out, variance_fraction = denoiser.outputs(x_t, level, class_label)
        target = denoiser.parameterization.target(*self.regressed(x_0, eps, x_t, level, class_label), level)
        weight = self.weighting.weight(level, denoiser.parameterization).to(out).view(-1)
        value = weight * mse_loss(out, target, reduction="none").flatten(1).mean(1)  # w * |out - target|², (B,)
        extra = self.extra(denoiser, x_0, x_t, level, out, variance_fraction)
        importance = self.times.importance(level.t)
        return Losses(
            value if extra is None else value + extra,
            level.t.view(-1),
            None if importance is None else importance.to(value).view(-1),
        )

    def check(self, denoiser: Denoiser) -> None:
        """Raises a `UserError` for a denoiser with a learned variance, which this loss does not train."""
        if denoiser.learned_variance:
            raise UserError("learned_variance=true needs a loss that trains the variance; take objective=hybrid")

    def regressed(
        self, x_0: Tensor, eps: Tensor, x_t: Tensor, level: Level, class_label: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """x_0 and eps of the target; a subclass may take others with ``x_t = alpha x_0 + sigma eps``."""
        return x_0, eps

    def extra(
        self, denoiser: Denoiser, x_0: Tensor, x_t: Tensor, level: Level, out: Tensor, variance_fraction: Tensor | None
    ) -> Tensor | None:
        """An additional loss term (B,) of a subclass, without the weight; None: no term."""
        return None
