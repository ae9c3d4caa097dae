"""The values that travel between the parts: a noise level, a prediction, and where noise comes from."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

Noise = Callable[[Tensor], Tensor]
"""Draws standard normal noise of the shape, dtype and device of its argument; ``torch.randn_like`` is one."""


class Level(NamedTuple):
    """One noise level of ``x_t = alpha * x_0 + sigma * eps``, broadcastable against the data it belongs to.

    Each field is either 0-dimensional (one level for a whole batch, as in sampling) or of shape (B, 1, ..., 1)
    (one level per sample, as in training), in float64: differences of neighbouring variances lose no digits, and
    coefficients are cast to the data's dtype only where they meet it (`gaussian.mix`).
    """

    t: Tensor
    alpha: Tensor
    sigma: Tensor

    @property
    def ratio(self) -> Tensor:
        """sigma / alpha: the noise deviation in units of the data; 0 at clean data."""
        return self.sigma / self.alpha

    @property
    def snr(self) -> Tensor:
        """alpha² / sigma²: infinite at clean data."""
        return (self.alpha / self.sigma) ** 2

    def unbind(self) -> "list[Level]":
        """A row of levels (fields of shape (n,)) as n 0-dimensional ones."""
        return [Level(*fields) for fields in zip(*(field.unbind() for field in self), strict=True)]

    @property
    def radius(self) -> Tensor:
        """sqrt(alpha² + sigma²): the deviation of x_t for data of deviation 1."""
        return torch.hypot(self.alpha, self.sigma)

    @property
    def angle(self) -> Tensor:
        """atan(sigma / alpha): from 0 at clean data to pi/2 where no signal is left."""
        return torch.atan2(self.sigma, self.alpha)

    @property
    def log_snr(self) -> Tensor:
        """log(alpha² / sigma²): +inf at clean data, -inf where no signal is left."""
        return 2 * (self.alpha.log() - self.sigma.log())

    @property
    def is_clean(self) -> bool:
        """Whether this (0-dimensional) level is the clean end, sigma = 0."""
        return bool((self.sigma == 0).all())


CLEAN = Level(*(torch.tensor(value, dtype=torch.float64) for value in (0.0, 1.0, 0.0)))
"""Data without noise: where every walk that ends in data ends."""


class Prediction(NamedTuple):
    """What a denoiser says of x_t: estimates of ``x_0`` and ``eps``, both shaped like x_t.

    ``variance_fraction``, shaped like x_t, is given where the variance of the reverse step is learned too: its
    logarithm lies at this fraction of the way from the posterior variance (0) to the forward one (1). Else it is None.
    """

    x_0: Tensor
    eps: Tensor
    variance_fraction: Tensor | None = None


def seeded_noise(seed: int) -> Noise:
    """A `Noise` that is a pure function of ``seed`` and of the shapes asked for, on any device."""
    generator = torch.Generator().manual_seed(seed)
    return lambda x: torch.randn(x.shape, generator=generator, dtype=x.dtype).to(x.device)


def per_sample_noise(seeds: list[int]) -> Noise:
    """A `Noise` with one stream per sample: sample i depends on ``seeds[i]`` alone, however samples are batched."""
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def draw(x: Tensor) -> Tensor:
        if len(x) != len(generators):
            raise ValueError(f"a batch of {len(x)} cannot use {len(generators)} seeds: give each sample one")
        rows = [torch.randn(x.shape[1:], generator=generator, dtype=x.dtype) for generator in generators]
        return torch.stack(rows).to(x.device)

    return draw
