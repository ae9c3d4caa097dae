"""Samplers of the reverse SDE in continuous time."""

from collections.abc import Iterator
from itertools import pairwise

from torch import Tensor

from litdiffusion.diffusion.gaussian import mix, posterior, transition
from litdiffusion.diffusion.levels import Level, Noise, Prediction, seeded_noise
from litdiffusion.diffusion.samplers.base import Predict, Sampler, prior, without_signal
from litdiffusion.diffusion.samplers.langevin import langevin_step
from litdiffusion.diffusion.schedules import NoiseSchedule
from litdiffusion.diffusion.seeding import fold_seed
from litdiffusion.errors import UserError


class EulerMaruyama(Sampler):
    """``x_s = x_t + (s - t) * (f x_t + g² eps / sigma) + g sqrt(t - s) z`` for the reverse SDE
    ``dx = (f x - g² score) dt + g dw``, with ``f = alpha' / alpha`` and ``g² = 2 sigma sigma' - 2 f sigma²``.

    Weak order 1. The last step, to clean data, returns the denoiser's x_0.

    Source: Anderson, "Reverse-Time Diffusion Equation Models", 1982; Song et al., 2020, arXiv 2011.13456, equation 6.
    """

    name = "euler_maruyama"

    @classmethod
    def unfit(cls, schedule: NoiseSchedule) -> str | None:
        return super().unfit(schedule) or without_signal(schedule)

    def walk(self, predict: Predict, x: Tensor, levels: list[Level], noise: Noise) -> Iterator[Tensor]:
        for now, after in pairwise(levels):
            prediction = predict(x, now)
            if after.is_clean:
                yield prediction.x_0
                return
            drift, variance = sde(predict.schedule, now)
            dt = after.t - now.t
            mean = mix(1 + dt * drift, x, dt * variance / now.sigma, prediction.eps)
            x = mean + (-dt * variance).sqrt() * noise(x)
            yield x


def sde(schedule: NoiseSchedule, level: Level) -> tuple[Tensor, Tensor]:
    """``(f, g²)`` of the forward SDE ``dx = f x dt + g dw`` with the schedule's marginals; g² >= 0."""
    alpha_rate, sigma_rate = schedule.rates(level.t)
    f = alpha_rate / level.alpha
    return f, 2 * level.sigma * (sigma_rate - f * level.sigma)


class PredictorCorrector(Sampler):
    """An ancestral step with forward variance, then ``corrections`` Langevin steps at the level reached.

    The step size is the source's, ``2 alpha_ts² (snr * |z| / |score|)²``: alpha_ts belongs to the ancestral step (the
    source's alpha_i = 1 - beta_i; 1 on processes with alpha = 1), and |z|² / |score|² lies between sigma², for point
    masses, and the variance of the noised data. Every correction costs one network call; with none it is
    `Ancestral(variance="forward")`. Corrections lower the error with few steps. With many steps an error of relative
    size snr² remains in the variance, the bias of a Langevin step. The last step, to clean data, is the posterior mean
    without a correction.

    The source takes the two norms over the batch. Here a sample must not depend on its batch, so |z| / |score| is
    ``(d / mean of |score|²)^1/2`` over a few pilot chains without corrections, drawn from fixed noise, without a class,
    with 256 numbers together; they cost one network call per step. The ratio of a single sample is no choice: in few
    dimensions a step size that depends on the position makes samples of N(0, 1) 1.3 to 400 times too wide.

    Source: Song et al., 2020, arXiv 2011.13456, algorithms 4 and 5 (snr 0.16: appendix G).
    """

    name = "predictor_corrector"

    def __init__(self, steps: int | None = None, grid: str = "uniform", corrections: int = 1, snr: float = 0.16):
        super().__init__(steps, grid)
        if corrections < 0 or not snr > 0:
            raise UserError(
                f"need sampler.corrections >= 0 and sampler.snr > 0, got {corrections}, {snr}; usual: 1, 0.16"
            )
        self.corrections, self.snr = corrections, snr

    def calls(self, schedule: NoiseSchedule) -> int:
        steps = len(self.levels(schedule)) - 1
        return steps + (self.corrections + 1) * (steps - 1) + (steps > 1) if self.corrections else steps

    def walk(self, predict: Predict, x: Tensor, levels: list[Level], noise: Noise) -> Iterator[Tensor]:
        sizes = _inverse_squared_scores(predict, x, levels) if self.corrections else []
        for index, (now, after) in enumerate(pairwise(levels)):
            x = _ancestral(predict(x, now), x, now, after, noise)
            for _ in range(0 if after.is_clean else self.corrections):
                step_size = 2 * self.snr**2 * transition(after, now).scale ** 2 * sizes[index]
                x = langevin_step(x, predict(x, after), after, step_size, noise)
            yield x


PILOT_NUMBERS = 256
"""Numbers that the pilot chains of `PredictorCorrector` have together."""


def _inverse_squared_scores(predict: Predict, x: Tensor, levels: list[Level]) -> list[Tensor]:
    """``d / E|score|²`` at every level but the first and the clean one, from pilot chains shaped like x (B, ...)."""
    noise = seeded_noise(fold_seed(0, "pilot"))
    count = max(1, PILOT_NUMBERS // x[0].numel())
    pilot, predict = prior(predict.schedule, x.new_empty(count, *x.shape[1:]), noise), Predict(predict.denoiser)
    sizes: list[Tensor] = []
    if len(levels) < 3:
        return sizes
    prediction = predict(pilot, levels[0])
    for now, after in pairwise(levels[:-1]):
        pilot = _ancestral(prediction, pilot, now, after, noise)
        prediction = predict(pilot, after)
        squared_score = prediction.eps.double().square().mean().cpu() / after.sigma**2
        # No score is smaller on average (Cramér, Rao); an untrained net may say so.
        sizes.append(1 / squared_score.maximum(1 / pilot.double().square().mean().cpu()))
    return sizes


def _ancestral(prediction: Prediction, x: Tensor, now: Level, after: Level, noise: Noise) -> Tensor:
    """The ancestral step with forward variance; none is added in the step to clean data."""
    weight_x_0, weight_x_t, _ = posterior(after, now)
    mean = mix(weight_x_0, prediction.x_0, weight_x_t, x)
    return mean if after.is_clean else mean + transition(after, now).variance.sqrt() * noise(x)
