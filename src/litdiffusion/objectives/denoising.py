"""The loss of a batch, in the order of the mathematics."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from litdiffusion.denoisers import Denoiser
from litdiffusion.gaussian import diffuse
from litdiffusion.parameterizations import Parameterization
from litdiffusion.times import TimeSampler
from litdiffusion.types import Level, Noise
from litdiffusion.weightings import Weighting


class Losses(NamedTuple):
    """Per sample, each (B,): the squared ``error`` of the output, a mean over coordinates; its ``weight``; the time.

    ``importance`` is what a sample counts where times were not drawn as they count (see `TimeSampler.importance`).
    ``extra`` is a further term of the loss, which the weight does not touch.
    """

    error: Tensor
    weight: Tensor
    t: Tensor
    importance: Tensor | None = None
    extra: Tensor | None = None

    @property
    def weighted(self) -> Tensor:
        """``weight * error + extra`` (B,)."""
        weighted = self.weight * self.error
        return weighted if self.extra is None else weighted + self.extra

    def mean(self) -> Tensor:
        """The loss of the batch, in few operations: for a small net each one counts."""
        weight = self.weight if self.importance is None else self.weight * self.importance
        mean = torch.dot(weight / len(weight), self.error)
        if self.extra is None:
            return mean
        return mean + (self.extra if self.importance is None else self.extra * self.importance).mean()


class DenoisingObjective(nn.Module):
    """``w(t) * |out(x_t, t) - target|²``, the mean over coordinates, at one drawn time and noise per sample.

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
        cond: Tensor | None = None,
        noise: Noise = torch.randn_like,
        offset: Tensor | float | None = None,
    ) -> Losses:
        """Losses of data x_0 (B, ...); ``noise`` and ``offset`` fix the randomness where a comparison needs it."""
        return self.losses(denoiser, x_0, noise, self.times.draw(x_0, offset), cond)

    def losses(self, denoiser: Denoiser, x_0: Tensor, noise: Noise, level: Level, cond: Tensor | None) -> Losses:
        """Those at given levels (B, 1, ..., 1)."""
        eps = noise(x_0)
        out = denoiser.output(diffuse(x_0, eps, level), level, cond)
        return self.compare(denoiser.parameterization, out, x_0, eps, level)

    def compare(
        self, parameterization: Parameterization, out: Tensor, x_0: Tensor, eps: Tensor, level: Level
    ) -> Losses:
        """The weighted squared error of an output (B, ...)."""
        target = parameterization.target(x_0, eps, level)
        error = mse_loss(out, target, reduction="none").flatten(1).mean(1)
        weight = self.weighting.weight(level, parameterization).to(error).view(-1)
        importance = self.times.importance(level.t)
        return Losses(error, weight, level.t.view(-1), None if importance is None else importance.to(error).view(-1))
