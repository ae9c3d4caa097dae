"""The probability-flow ODE by Euler's and Heun's methods."""

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from litdiffusion.diffusion.gaussian import mix
from litdiffusion.diffusion.levels import Level, Noise, Prediction
from litdiffusion.diffusion.parameterizations import V
from litdiffusion.diffusion.samplers.base import Predict, Sampler, without_signal
from litdiffusion.diffusion.samplers.grids import on_flow
from litdiffusion.diffusion.schedules import NoiseSchedule
from litdiffusion.errors import UserError


class SolverLevel(NamedTuple):
    """A level in the coordinate of a solver: ``d(x / scale) / d(position) = a * x_0 + b * eps``."""

    position: Tensor
    scale: Tensor
    a: Tensor
    b: Tensor

    def slope(self, prediction: Prediction) -> Tensor:
        """``a * x_0 + b * eps``."""
        return mix(self.a, prediction.x_0, self.b, prediction.eps)


class Step(NamedTuple):
    """One step of x from ``here`` to ``there``, with the slope at ``here``."""

    x: Tensor
    here: SolverLevel
    there: SolverLevel
    slope: Tensor

    def moved(self, slope: Tensor) -> Tensor:
        """x at ``there`` after a step of x / scale with a constant slope."""
        here, there = self.here, self.there
        return mix(there.scale / here.scale, self.x, there.scale * (there.position - here.position), slope)


def in_time(schedule: NoiseSchedule, level: Level) -> SolverLevel:
    """``dx / dt = alpha' x_0 + sigma' eps``: the flow in the schedule's time."""
    return SolverLevel(level.t, torch.ones_like(level.alpha), *schedule.rates(level.t))


def in_ratio(schedule: NoiseSchedule, level: Level) -> SolverLevel:
    """``d(x / alpha) / d(sigma / alpha) = eps``: the same for every schedule; Euler's method in it is `DDIM`."""
    return SolverLevel(level.ratio, level.alpha, torch.zeros_like(level.alpha), torch.ones_like(level.alpha))


def in_angle(schedule: NoiseSchedule, level: Level) -> SolverLevel:
    """``dy / dphi = cos(phi) eps - sin(phi) x_0`` for ``y = x / r``, ``phi = atan(sigma / alpha)``.

    r² = alpha² + sigma²; the right side is the velocity v. The same for every schedule, bounded, regular at both ends.
    """
    return SolverLevel(level.angle, level.radius, *V().row(level))


def default_coordinate(schedule: NoiseSchedule, level: Level) -> SolverLevel:
    """sigma if alpha = 1 (EDM's choice), time on flow matching's path, where alpha = 0 at t = 1, else the angle.

    Not time on a chain that ends at alpha = 0, because there time has a kink at every level.
    """
    if schedule.explodes:
        return in_ratio(schedule, level)
    return (in_time if on_flow(schedule) else in_angle)(schedule, level)


COORDINATES = {"time": in_time, "ratio": in_ratio, "angle": in_angle, "auto": default_coordinate}


class Euler(Sampler):
    """``x_s = x_t + (s - t) * (alpha' x_0 + sigma' eps)``: order 1, one network call per step.

    The last step, to clean data, returns the denoiser's x_0. Other coordinates give other methods of order 1. "ratio"
    steps x / alpha over sigma / alpha and equals `DDIM`; so does "time" on the straight path of flow matching, and if
    alpha = 1 and sigma is linear in time. "angle" steps x / r over atan(sigma / alpha). "auto" is "ratio" if alpha = 1,
    "time" in continuous time if alpha = 0 at t = 1, else "angle".

    Source: the ODE is equation 13 of Song et al., 2020, arXiv 2011.13456.
    """

    name = "euler"

    def __init__(self, steps: int | None = None, grid: str = "uniform", coordinate: str = "auto"):
        super().__init__(steps, grid)
        if coordinate not in COORDINATES:
            raise UserError(f"sampler.coordinate must be one of {', '.join(COORDINATES)}, got {coordinate!r}")
        self.coordinate = coordinate

    def check(self, schedule: NoiseSchedule, learned_variance: bool = True) -> None:
        super().check(schedule, learned_variance)
        if self.coordinate == "ratio" and without_signal(schedule):
            raise UserError(f"sampler.coordinate=ratio: {without_signal(schedule)}; take sampler.coordinate=time")

    def walk(self, predict: Predict, x: Tensor, levels: list[Level], noise: Noise) -> Iterator[Tensor]:
        for now, after in pairwise(levels):
            x = self.advance(predict, x, now, after)
            yield x

    def advance(self, predict: Predict, x: Tensor, now: Level, after: Level) -> Tensor:
        """x at the level ``after``."""
        prediction = predict(x, now)
        if after.is_clean:
            return prediction.x_0
        here, there = (COORDINATES[self.coordinate](predict.schedule, level) for level in (now, after))
        step = Step(x, here, there, here.slope(prediction))
        return self.corrected(predict, step, step.moved(step.slope), after)

    def corrected(self, predict: Predict, step: Step, guess: Tensor, after: Level) -> Tensor:
        """x at ``after`` from Euler's ``guess``, which Euler's method itself does not correct."""
        return guess


class Heun(Euler):
    """Euler's step, repeated with the mean of the slopes at both ends: order 2, 2 N - 1 network calls.

    On a chain of T levels order 2 needs the coordinate "ratio" or "angle". In "time" the rates jump from level to
    level, which leaves an error of order 1 / T for any number of steps.

    ``churn`` > 0 first raises sigma to sigma * (1 + gamma), ``gamma = min(churn / N, sqrt(2) - 1)``, by adding noise
    scaled by ``churn_noise``, at levels with sigma / alpha in [churn_min, churn_max]. The raised level is at most the
    noisiest level, above which the net is not trained. churn = 0 is the ODE.

    Source: Karras, Aittala, Aila, Laine, 2022, arXiv 2206.00364, algorithms 1 and 2.
    """

    name = "heun"

    def __init__(
        self,
        steps: int | None = None,
        grid: str = "auto",
        coordinate: str = "auto",
        churn: float = 0.0,
        churn_min: float = 0.0,
        churn_max: float = float("inf"),
        churn_noise: float = 1.0,
    ):
        super().__init__(steps, grid, coordinate)
        if churn < 0 or churn_noise <= 0 or churn_min > churn_max:
            raise UserError(
                f"Heun needs sampler.churn >= 0, churn_noise > 0 and churn_min <= churn_max, got {churn}, "
                f"{churn_noise}, {churn_min} and {churn_max}; churn=0 is deterministic"
            )
        self.churn, self.churn_min, self.churn_max, self.churn_noise = churn, churn_min, churn_max, churn_noise

    def check(self, schedule: NoiseSchedule, learned_variance: bool = True) -> None:
        super().check(schedule, learned_variance)
        if self.churn > 0 and not (schedule.explodes and schedule.steps is None):
            raise UserError("sampler.churn needs alpha = 1 and continuous time; take schedule=edm or ve, or churn=0")

    def calls(self, schedule: NoiseSchedule) -> int:
        return 2 * (len(self.levels(schedule)) - 1) - 1

    def walk(self, predict: Predict, x: Tensor, levels: list[Level], noise: Noise) -> Iterator[Tensor]:
        gamma = min(self.churn / (len(levels) - 1), 2**0.5 - 1)
        for now, after in pairwise(levels):
            if gamma > 0 and self.churn_min <= now.ratio <= self.churn_max:
                x, now = self._churned(predict.schedule, x, now, gamma, noise)
            x = self.advance(predict, x, now, after)
            yield x

    def corrected(self, predict: Predict, step: Step, guess: Tensor, after: Level) -> Tensor:
        """The step repeated with the mean of the slopes at both ends."""
        return step.moved((step.slope + step.there.slope(predict(guess, after))) / 2)

    def _churned(
        self, schedule: NoiseSchedule, x: Tensor, now: Level, gamma: float, noise: Noise
    ) -> tuple[Tensor, Level]:
        """x with added noise, and its raised level."""
        raised = schedule.at(schedule.time(now.log_snr - 2 * math.log1p(gamma)))
        added = (raised.sigma**2 - now.sigma**2).clamp(min=0).sqrt() * self.churn_noise
        return x + added * noise(x), raised
