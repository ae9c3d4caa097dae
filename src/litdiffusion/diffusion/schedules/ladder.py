"""Noise ladders: L levels of rising sigma with alpha = 1; a single noise level is a ladder with L = 1."""

from collections.abc import Sequence

import torch
from torch import Tensor

from litdiffusion.diffusion.levels import Level
from litdiffusion.diffusion.schedules.chain import Chain
from litdiffusion.errors import UserError


class NoiseLadder(Chain):
    """``x_i = x_0 + sigma_i * eps``, i = 1..L, sigma rising; between two levels sigma² is linear in t.

    Args:
        sigmas: (L,) noise stds in units of the data, positive and strictly rising, L >= 1.

    Raises:
        UserError: if ``sigmas`` is empty, not positive or not strictly rising.

    Source: Song, Ermon, "Generative Modeling by Estimating Gradients of the Data Distribution", 2019,
    arXiv 1907.05600, section 3.2.
    """

    sigma_data: float | None = None

    def __init__(self, sigmas: Tensor | Sequence[float]):
        sigmas = torch.as_tensor(sigmas, dtype=torch.float64)
        if sigmas.ndim != 1 or not len(sigmas) or not (sigmas > 0).all() or not (sigmas.diff() > 0).all():
            raise UserError(
                f"a noise ladder needs one or more positive, strictly rising sigmas, got {sigmas.tolist()[:4]}; "
                f"set schedule.sigma_min below schedule.sigma_max"
            )
        super().__init__(-torch.cat([sigmas.new_zeros(1), sigmas**2]))

    @property
    def prior_std(self) -> float:
        return self.at(1.0).sigma.item()

    def _scales(self, negative_variance: Tensor) -> tuple[Tensor, Tensor]:
        return torch.ones_like(negative_variance), (-negative_variance).sqrt()

    def _coordinate(self, log_snr: Tensor) -> Tensor:
        return -(-log_snr).exp()

    def _rates(self, slope: Tensor, level: Level) -> tuple[Tensor, Tensor]:
        return torch.zeros_like(slope), -slope / (2 * level.sigma)


class GeometricLadder(NoiseLadder):
    """L = ``steps`` sigmas, evenly spaced in log sigma, from ``sigma_min`` to ``sigma_max``.

    Both ends are in units of ``sigma_data``, the std of the data; with None they are in the data's own units.
    ``sigma_max`` should be about the largest distance between two data points.

    Source: Song, Ermon, 2019, arXiv 1907.05600 (L = 10, 0.01 to 1); how to choose the ends: Song, Ermon, "Improved
    Techniques for Training Score-Based Generative Models", 2020, arXiv 2006.09011, techniques 1 and 2.
    """

    def __init__(
        self, steps: int = 50, sigma_min: float = 0.01, sigma_max: float = 10.0, sigma_data: float | None = 1.0
    ):
        if not isinstance(steps, int) or steps < 2:
            raise UserError(
                f"schedule.steps must be at least 2 and whole, got {steps!r}; take schedule=single for one sigma"
            )
        low, high = torch.tensor(scaled_sigmas(sigma_min, sigma_max, sigma_data), dtype=torch.float64).log().tolist()
        self.sigma_data = sigma_data
        super().__init__(torch.linspace(low, high, steps, dtype=torch.float64).exp())


def scaled_sigmas(sigma_min: float, sigma_max: float, sigma_data: float | None) -> tuple[float, float]:
    """Both ends times ``sigma_data`` (None: unchanged); a `UserError` for values out of order or not positive."""
    if not 0 < sigma_min < sigma_max:
        raise UserError(f"need 0 < schedule.sigma_min < schedule.sigma_max, got {sigma_min} and {sigma_max}")
    if sigma_data is not None and not sigma_data > 0:
        raise UserError(f"schedule.sigma_data must be positive, got {sigma_data}; it is the data's std, or null")
    unit = 1.0 if sigma_data is None else sigma_data
    return sigma_min * unit, sigma_max * unit


class SingleLevel(NoiseLadder):
    """One noise level: denoising score matching without time; samples are data blurred by noise of std ``sigma``.

    Source: Vincent, "A Connection Between Score Matching and Denoising Autoencoders", 2011 (Neural Computation 23).
    """

    def __init__(self, sigma: float = 0.2):
        if not sigma > 0:
            raise UserError(f"schedule.sigma must be positive, got {sigma}; 0.1 to 1 times the data's std are usual")
        super().__init__(torch.tensor([sigma], dtype=torch.float64))
