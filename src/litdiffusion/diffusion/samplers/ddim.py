"""DDIM: samplers between the deterministic probability flow and ancestral sampling."""

from torch import Tensor

from litdiffusion.diffusion.gaussian import mix, posterior
from litdiffusion.diffusion.levels import Level, Noise, Prediction
from litdiffusion.diffusion.samplers.base import Sampler
from litdiffusion.errors import UserError


class DDIM(Sampler):
    """``x_s = alpha_s * x_0 + sqrt(sigma_s² - v) * eps + sqrt(v) * z`` with ``v = eta² * posterior variance``.

    eta = 0 is deterministic: Euler's method in the coordinate sigma / alpha, of order 1. eta = 1 equals
    `Ancestral(variance="posterior")`.

    Source: Song, Meng, Ermon, "Denoising Diffusion Implicit Models", 2020, arXiv 2010.02502, equation 12.
    """

    name = "ddim"

    def __init__(self, steps: int | None = None, eta: float = 0.0, grid: str = "uniform"):
        super().__init__(steps, grid)
        if not 0 <= eta <= 1:
            raise UserError(f"sampler.eta must lie in [0, 1] (0 deterministic, 1 ancestral), got {eta}")
        self.eta = eta

    def step(self, x: Tensor, prediction: Prediction, now: Level, after: Level, noise: Noise) -> Tensor:
        if self.eta == 0:
            return mix(after.alpha, prediction.x_0, after.sigma, prediction.eps)
        variance = self.eta**2 * posterior(after, now).variance
        mean = mix(after.alpha, prediction.x_0, (after.sigma**2 - variance).sqrt(), prediction.eps)
        return mean + variance.sqrt() * noise(x)
