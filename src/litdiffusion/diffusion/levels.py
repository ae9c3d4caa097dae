"""The values that all parts exchange: a noise level, a denoiser's prediction, and a source of noise."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["CLEAN", "Level", "Noise", "Prediction", "per_sample_noise", "seeded_noise"]

Noise = Callable[[Tensor], Tensor]
"""A function that returns standard normal noise like its argument (shape, dtype, device), e.g. ``torch.randn_like``."""


class Level(NamedTuple):
    """One noise level of ``x_t = alpha * x_0 + sigma * eps``, broadcastable against the data.

    Each field is either 0-dimensional (one level for a whole batch, as in sampling) or has shape (B, 1, ..., 1)
    (one level per sample, as in training). Fields are float64, so that differences of neighbouring variances keep
    their digits; `gaussian.mix` casts coefficients to the data's dtype.
    """

    t: Tensor
    alpha: Tensor
    sigma: Tensor

    @property
    def ratio(self) -> Tensor:
        """sigma / alpha: the noise std in units of the data; 0 at clean data."""
        return self.sigma / self.alpha

    @property
    def snr(self) -> Tensor:
        """alpha² / sigma²: infinite at clean data."""
        return (self.alpha / self.sigma) ** 2

    def unbind(self) -> "list[Level]":
        """A level with fields of shape (n,) as a list of n 0-dimensional levels."""
        return [Level(*fields) for fields in zip(*(field.unbind() for field in self), strict=True)]

    @property
    def radius(self) -> Tensor:
        """sqrt(alpha² + sigma²): the std of x_t for data of std 1."""
        return torch.hypot(self.alpha, self.sigma)

    @property
    def angle(self) -> Tensor:
        """atan(sigma / alpha): 0 at clean data, pi/2 where no signal is left (alpha = 0)."""
        return torch.atan2(self.sigma, self.alpha)

    @property
    def log_snr(self) -> Tensor:
        """log(alpha² / sigma²): +inf at clean data, -inf where no signal is left (alpha = 0)."""
        return 2 * (self.alpha.log() - self.sigma.log())

    @property
    def is_clean(self) -> bool:
        """Whether this 0-dimensional level is clean data (sigma = 0)."""
        return bool((self.sigma == 0).all())


CLEAN = Level(*(torch.tensor(value, dtype=torch.float64) for value in (0.0, 1.0, 0.0)))
"""The level of data without noise: the last level of a sampler that ends at clean data."""


class Prediction(NamedTuple):
    """A denoiser's estimates of ``x_0`` and ``eps`` from x_t, both shaped like x_t.

    ``variance_fraction``, shaped like x_t, gives a learned variance of the reverse step: its logarithm is
    interpolated linearly from the posterior variance (0) to the forward variance (1). None: no learned variance.
    """

    x_0: Tensor
    eps: Tensor
    variance_fraction: Tensor | None = None


def seeded_noise(seed: int) -> Noise:
    """A `Noise` whose draws depend only on ``seed`` and on the requested shapes, on every device."""
    generator = torch.Generator().manual_seed(seed)
    return lambda x: _on(x.device, torch.randn(x.shape, generator=generator, dtype=x.dtype))


def per_sample_noise(seeds: list[int]) -> Noise:
    """A `Noise` with one random stream per sample: sample i depends only on ``seeds[i]``, not on its batch."""
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def draw(x: Tensor) -> Tensor:
        if len(x) != len(generators):
            raise ValueError(f"a batch of {len(x)} needs {len(x)} seeds, got {len(generators)}; give one per sample")
        noise = torch.empty(x.shape, dtype=x.dtype)
        for row, generator in zip(noise.unbind(), generators, strict=True):
            row.normal_(generator=generator)
        return _on(x.device, noise)

    return draw


def _on(device: torch.device, noise: Tensor) -> Tensor:
    """The noise on the device; on its way to a GPU the host goes on, and draws the next noise meanwhile."""
    return noise.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else noise.to(device)
