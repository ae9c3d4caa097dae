"""Ancestral sampling: draws from one reverse transition after the other."""

from torch import Tensor

from litdiffusion.diffusion.gaussian import log_variance_between, mix, posterior, transition
from litdiffusion.diffusion.levels import Level, Noise, Prediction
from litdiffusion.diffusion.samplers.base import Sampler
from litdiffusion.errors import UserError


def _learned_variance(after: Level, now: Level, prediction: Prediction) -> Tensor:
    if prediction.variance_fraction is None:
        raise UserError(
            "sampler.variance=learned needs a denoiser with a learned variance; train with objective=hybrid, or take "
            "sampler.variance=posterior or forward"
        )
    lower, upper = posterior(after, now).variance, transition(after, now).variance
    return log_variance_between(lower, upper, prediction.variance_fraction).exp()


VARIANCES = {
    "posterior": lambda after, now, prediction: posterior(after, now).variance,
    "forward": lambda after, now, prediction: transition(after, now).variance,
    "learned": _learned_variance,
}


class Ancestral(Sampler):
    """``x_s = mean(x_0, x_t) + sqrt(variance) * z`` with the posterior's mean at the predicted x_0.

    ``variance="posterior"`` is exact if the data are one point, ``"forward"`` (beta_t) if they are N(0, I): Ho's lower
    and upper choice. ``"learned"`` interpolates their logarithms by the prediction's ``variance_fraction``. With fewer
    steps than the chain has, mean and variance are those between the visited levels. The step to clean data adds no
    noise, although its forward variance is not zero.

    Raises:
        UserError: in the first step, for "learned" with a denoiser without a learned variance.

    Source: Ho, Jain, Abbeel, "Denoising Diffusion Probabilistic Models", 2020, arXiv 2006.11239, algorithm 2; learned:
    Nichol, Dhariwal, 2021, arXiv 2102.09672, equation 15.
    """

    name = "ancestral"

    def __init__(self, steps: int | None = None, variance: str = "posterior", grid: str = "uniform"):
        super().__init__(steps, grid)
        if variance not in VARIANCES:
            raise UserError(f"sampler.variance must be one of {', '.join(VARIANCES)}, got {variance!r}")
        self.variance = variance

    @property
    def needs_learned_variance(self) -> bool:
        return self.variance == "learned"

    def step(self, x: Tensor, prediction: Prediction, now: Level, after: Level, noise: Noise) -> Tensor:
        weight_x_0, weight_x_t, _ = posterior(after, now)
        mean = mix(weight_x_0, prediction.x_0, weight_x_t, x)
        if after.is_clean:
            return mean
        return mean + VARIANCES[self.variance](after, now, prediction).sqrt() * noise(x)
