"""Samplers of the reverse SDE in continuous time."""

from collections.abc import Iterator
from itertools import pairwise

from torch import Tensor

from litdiffusion.diffusion.gaussian import mix, posterior, transition
from litdiffusion.diffusion.levels import Level, Noise
from litdiffusion.diffusion.samplers.base import Predict, Sampler, without_signal
from litdiffusion.diffusion.samplers.langevin import langevin_step
from litdiffusion.diffusion.schedules import NoiseSchedule
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
    """An ancestral step with forward variance, then ``corrections`` Langevin steps of size ``2 (snr * sigma)²``.

    Every correction costs one network call; with none it is `Ancestral(variance="forward")`. Corrections lower the
    error with few steps. With many steps the error may fall more slowly than 1 / N, because the bias (snr * sigma)² of
    the variance at a level vanishes only near clean data. The last step, to clean data, is the posterior mean without
    a correction. In place of sigma the source uses |z| / |score| over the batch, whose typical value is sigma; here a
    sample does not depend on its batch.

    Source: Song et al., 2020, arXiv 2011.13456, algorithms 2 and 3 and appendix G (snr 0.16).
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
        return steps + self.corrections * (steps - 1)

    def walk(self, predict: Predict, x: Tensor, levels: list[Level], noise: Noise) -> Iterator[Tensor]:
        for now, after in pairwise(levels):
            weight_x_0, weight_x_t, _ = posterior(after, now)
            x = mix(weight_x_0, predict(x, now).x_0, weight_x_t, x)
            if not after.is_clean:
                x = x + transition(after, now).variance.sqrt() * noise(x)
                for _ in range(self.corrections):
                    x = langevin_step(x, predict(x, after), after, 2 * (self.snr * after.sigma) ** 2, noise)
            yield x
