"""Langevin dynamics: steps at one noise level, which keep the distribution of the noised data.

The convention is ``x + h * score + sqrt(2 h) * z`` with the step size h in squared units of the data. (Sources that
write ``x + e/2 * score + sqrt(e) * z`` have e = 2 h.)
"""

from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor

from litdiffusion.diffusion.gaussian import mix
from litdiffusion.diffusion.levels import Level, Noise, Prediction
from litdiffusion.diffusion.samplers.base import Predict, Sampler
from litdiffusion.diffusion.schedules import NoiseSchedule
from litdiffusion.errors import UserError


def langevin_step(x: Tensor, prediction: Prediction, level: Level, step_size: Tensor, noise: Noise) -> Tensor:
    """``x + h * score + sqrt(2 h) * z``, with ``score = -eps / sigma``.

    For data N(0, s²) the stationary variance is ``s² / (1 - h / (2 s²))``: the bias of a finite step size.
    """
    drifted = mix(torch.ones_like(level.sigma), x, -step_size / level.sigma, prediction.eps)
    return drifted + (2 * step_size) ** 0.5 * noise(x)


class Langevin(Sampler):
    """``steps`` Langevin steps at a single noise level, from N(0, start_std²): samples of the blurred data.

    The start is arbitrary, because the process has no level of pure noise. Too few steps leave a trace of the start.
    Between distant modes the score is small and poorly trained, so samples remain there.

    Args:
        steps: number of steps.
        step_size: h, below about sigma².
        start_std: std of the start, in units of the data.

    Source: Song, Ermon, 2019, arXiv 1907.05600, section 2.2; Roberts, Tweedie, "Exponential Convergence of Langevin
    Distributions and Their Discrete Approximations", 1996.
    """

    name = "langevin"
    respaceable = False

    def __init__(self, steps: int = 2000, step_size: float = 0.005, start_std: float = 1.0):
        super().__init__(steps)
        if steps < 1 or not step_size > 0 or start_std < 0:
            raise UserError(
                f"Langevin needs sampler.steps >= 1, step_size > 0 and start_std >= 0, got {steps}, {step_size} and "
                f"{start_std}"
            )
        self.step_size, self.start_std = step_size, start_std

    @classmethod
    def unfit(cls, schedule: NoiseSchedule) -> str | None:
        return None if schedule.steps == 1 else "it stays at one noise level, and this process has many"

    def levels(self, schedule: NoiseSchedule) -> list[Level]:
        if self.steps is None:
            raise UserError("sampler=langevin has no natural number of steps; give sampler.steps, 2000 is usual")
        return [schedule.at(1.0)] * (self.steps + 1)

    def prior(self, schedule: NoiseSchedule, like: Tensor, noise: Noise = torch.randn_like) -> Tensor:
        return self.start_std * noise(like)

    def step(self, x: Tensor, prediction: Prediction, now: Level, after: Level, noise: Noise) -> Tensor:
        return langevin_step(x, prediction, now, torch.as_tensor(self.step_size, dtype=torch.float64), noise)


class AnnealedLangevin(Sampler):
    """``inner_steps`` Langevin steps of size ``step_size * sigma²`` at every level of a noise ladder, noisiest first.

    With ``denoise`` it ends with the denoiser's x_0 at the last level. At the noisiest level the modes overlap, so the
    modes get the right weights there, before the lower levels separate them. The trajectory has one state per level.

    Args:
        steps: number of visited levels; None: all.
        inner_steps: Langevin steps at each level.
        step_size: in units of sigma², below 1. (The source's e / sigma_L² is twice this.)
        denoise: end with E[x_0 | x], which removes the noise of the last level.

    Source: Song, Ermon, 2019, arXiv 1907.05600, algorithm 1; the last denoising: Jolicoeur-Martineau et al.,
    "Adversarial Score Matching and Improved Sampling for Image Generation", 2020, arXiv 2009.05475.
    """

    name = "annealed_langevin"
    respaceable = False

    def __init__(
        self,
        steps: int | None = None,
        grid: str = "uniform",
        inner_steps: int = 20,
        step_size: float = 0.1,
        denoise: bool = True,
    ):
        super().__init__(steps, grid)
        if inner_steps < 1 or not 0 < step_size < 2:
            raise UserError(
                f"annealed Langevin needs sampler.inner_steps >= 1 and step_size in (0, 2) (unstable beyond), got "
                f"{inner_steps} and {step_size}; 20 and 0.1 are usual"
            )
        self.inner_steps, self.step_size, self.denoise = inner_steps, step_size, denoise

    @classmethod
    def unfit(cls, schedule: NoiseSchedule) -> str | None:
        return super().unfit(schedule) or (None if schedule.explodes else "it needs alpha = 1 at every level")

    def levels(self, schedule: NoiseSchedule) -> list[Level]:
        """The noisiest level comes twice, because a step from one level to the next runs the dynamics of the next."""
        noisy = super().levels(schedule)[:-1]
        return [noisy[0], *noisy, *([super().levels(schedule)[-1]] if self.denoise else [])]

    def calls(self, schedule: NoiseSchedule) -> int:
        count = len(self.levels(schedule)) - 1 - self.denoise
        return count * self.inner_steps + self.denoise

    def walk(self, predict: Predict, x: Tensor, levels: list[Level], noise: Noise) -> Iterator[Tensor]:
        for now, after in pairwise(levels):
            if after.is_clean:
                yield predict(x, now).x_0
                return
            for _ in range(self.inner_steps):
                x = langevin_step(x, predict(x, after), after, self.step_size * after.sigma**2, noise)
            yield x
