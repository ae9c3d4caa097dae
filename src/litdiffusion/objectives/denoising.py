"""The loss of a batch, in the order of the mathematics."""

from typing import NamedTuple

import torch
from torch import Tensor

from litdiffusion.denoisers import Denoiser
from litdiffusion.gaussian import diffuse
from litdiffusion.times import TimeSampler
from litdiffusion.types import Noise
from litdiffusion.weightings import Weighting


class Losses(NamedTuple):
    """Per sample: the weighted ``loss`` and the unweighted squared ``error``, mean over coordinates, and the time
    ``t``; each (B,)."""

    loss: Tensor
    error: Tensor
    t: Tensor


class DenoisingObjective:
    """``w(t) * |out(x_t, t) - target|²``, the mean over coordinates, at one drawn time and noise per sample.

    Source: Ho, Jain, Abbeel, "Denoising Diffusion Probabilistic Models", 2020, arXiv 2006.11239, algorithm 1.
    """

    def __init__(self, times: TimeSampler, weighting: Weighting):
        self.times = times
        self.weighting = weighting

    def __call__(
        self,
        denoiser: Denoiser,
        x_0: Tensor,
        cond: Tensor | None = None,
        noise: Noise = torch.randn_like,
        offset: Tensor | None = None,
    ) -> Losses:
        """Losses of data x_0 (B, ...); ``noise`` and ``offset`` fix the randomness where a comparison needs it."""
        t = self.times.draw(x_0, offset)
        level = denoiser.schedule.at(t)
        eps = noise(x_0)
        x_t = diffuse(x_0, eps, level)
        out = denoiser.output(x_t, level, cond)
        target = denoiser.parameterization.target(x_0, eps, level)
        error = (out - target).square().flatten(1).mean(1)
        weight = self.weighting.weight(level, denoiser.parameterization).to(error).view(-1)
        return Losses(weight * error, error, t.view(-1))
