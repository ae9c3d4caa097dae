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

    @staticmethod
    def _scales(negative_variance: Tensor) -> tuple[Tensor, Tensor]:
        return torch.ones_like(negative_variance), (-negative_variance).sqrt()

    @staticmethod
    def _coordinate(log_snr: Tensor) -> Tensor:
        return -(-log_snr).exp()

    @staticmethod
    def _rates(slope: Tensor, level: Level) -> tuple[Tensor, Tensor]:
        return torch.zeros_like(slope), -slope / (2 * level.sigma)


class GeometricLadder(NoiseLadder):
    """L = ``steps`` sigmas, evenly spaced in log sigma, from ``sigma_min`` to ``sigma_max``.

    ``sigma_max`` should be about the largest distance between two data points.

    Source: Song, Ermon, 2019, arXiv 1907.05600 (L = 10, 0.01 to 1); how to choose the ends: Song, Ermon, "Improved
    Techniques for Training Score-Based Generative Models", 2020, arXiv 2006.09011, techniques 1 and 2.
    """

    def __init__(self, steps: int = 50, sigma_min: float = 0.01, sigma_max: float = 10.0):
        if not isinstance(steps, int) or steps < 2:
            raise UserError(
                f"schedule.steps must be at least 2 and whole, got {steps!r}; take schedule=single for one sigma"
            )
        if not 0 < sigma_min < sigma_max:
            raise UserError(f"a ladder needs 0 < sigma_min < sigma_max, got {sigma_min} and {sigma_max}")
        ends = torch.tensor([sigma_min, sigma_max], dtype=torch.float64).log()
        super().__init__(torch.linspace(*ends.tolist(), steps, dtype=torch.float64).exp())


class SingleLevel(NoiseLadder):
    """One noise level: denoising score matching without time; samples are data blurred by noise of std ``sigma``.

    Source: Vincent, "A Connection Between Score Matching and Denoising Autoencoders", 2011 (Neural Computation 23).
    """

    def __init__(self, sigma: float = 0.5):
        if not sigma > 0:
            raise UserError(f"schedule.sigma must be positive, got {sigma}; 0.1 to 1 times the data's std are usual")
        super().__init__(torch.tensor([sigma], dtype=torch.float64))
