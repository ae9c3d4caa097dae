"""Noise ladders: L deviations added to data that keep their scale (alpha = 1); a single one is a ladder of one rung."""

from collections.abc import Sequence

import torch
from torch import Tensor

from litdiffusion.diffusion.levels import Level
from litdiffusion.diffusion.schedules.chain import Chain
from litdiffusion.errors import UserError
from litdiffusion.parts.described import described


class NoiseLadder(Chain):
    """``x_i = x_0 + sigma_i * eps``, i = 1..L, sigma rising; between two rungs sigma² is linear in t.

    Args:
        sigmas: (L,) deviations, positive and strictly rising, L >= 1, in units of the data.

    Raises:
        UserError: no deviation, one that is not positive, or one that does not exceed the rung before it.

    Source: Song, Ermon, "Generative Modeling by Estimating Gradients of the Data Distribution", 2019,
    arXiv 1907.05600, section 3.2.
    """

    def __init__(self, sigmas: Tensor | Sequence[float]):
        sigmas = torch.as_tensor(sigmas, dtype=torch.float64)
        if sigmas.ndim != 1 or not len(sigmas) or not (sigmas > 0).all() or not (sigmas.diff() > 0).all():
            raise UserError(
                f"a noise ladder needs one or more positive, strictly rising deviations, got {sigmas.tolist()[:4]}; "
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


@described
def ladder(steps: int = 50, sigma_min: float = 0.01, sigma_max: float = 10.0) -> NoiseLadder:
    """L = ``steps`` geometric deviations from ``sigma_min`` to ``sigma_max``, about the largest distance in the data.

    Source: Song, Ermon, 2019, arXiv 1907.05600 (L = 10, 0.01 to 1); how to choose the ends: Song, Ermon, "Improved
    Techniques for Training Score-Based Generative Models", 2020, arXiv 2006.09011, techniques 1 and 2.
    """
    if not isinstance(steps, int) or steps < 2:
        raise UserError(
            f"schedule.steps must be at least 2 and whole, got {steps!r}; take schedule=single for one sigma"
        )
    if not 0 < sigma_min < sigma_max:
        raise UserError(f"a ladder needs 0 < sigma_min < sigma_max, got {sigma_min} and {sigma_max}")
    ends = torch.tensor([sigma_min, sigma_max], dtype=torch.float64).log()
    return NoiseLadder(torch.linspace(*ends.tolist(), steps, dtype=torch.float64).exp())


@described
def single(sigma: float = 0.5) -> NoiseLadder:
    """One deviation: denoising score matching without time; its samplers reach the data blurred by ``sigma``.

    Source: Vincent, "A Connection Between Score Matching and Denoising Autoencoders", 2011 (Neural Computation 23).
    """
    if not sigma > 0:
        raise UserError(f"schedule.sigma must be positive, got {sigma}; a tenth of the data's deviation to all of it")
    return NoiseLadder(torch.tensor([sigma], dtype=torch.float64))
