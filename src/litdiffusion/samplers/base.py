"""The loop that all samplers share; each writes only its own step."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

from litdiffusion.schedules import NoiseSchedule
from litdiffusion.types import Level, Noise, Prediction


class State(NamedTuple):
    """One state of a trajectory: x (B, ...) and the noise level it stands at."""

    x: Tensor
    level: Level


class Sampler(ABC):
    """Walks ``steps`` transitions from the noisiest level to clean data; None takes every level of the chain."""

    def __init__(self, steps: int | None = None):
        self.steps = steps

    def levels(self, schedule: NoiseSchedule) -> list[Level]:
        """The levels it visits, falling, the last one clean."""
        return schedule.grid(self.steps)

    @abstractmethod
    def step(self, x: Tensor, prediction: Prediction, now: Level, after: Level, noise: Noise) -> Tensor:
        """x at the cleaner level ``after``, from x (B, ...) and the denoiser's prediction at the level ``now``."""

    def trajectory(
        self,
        denoiser: nn.Module,
        x: Tensor,
        cond: Tensor | None = None,
        noise: Noise = torch.randn_like,
    ) -> Iterator[State]:
        """Yields every state, beginning with x itself, a draw of the prior (see `prior`)."""
        levels = self.levels(denoiser.schedule)
        yield State(x, levels[0])
        for now, after in pairwise(levels):
            with torch.no_grad():
                x = self.step(x, denoiser(x, now, cond), now, after, noise)
            yield State(x, after)

    def sample(
        self,
        denoiser: nn.Module,
        x: Tensor,
        cond: Tensor | None = None,
        noise: Noise = torch.randn_like,
    ) -> Tensor:
        """The last state of the trajectory from x: samples, shaped like x."""
        for state in self.trajectory(denoiser, x, cond, noise):
            x = state.x
        return x

    def respaced(self, steps: int | None) -> "Sampler":
        """The same sampler with another number of steps."""
        other = copy.copy(self)
        other.steps = steps
        return other


def prior(schedule: NoiseSchedule, like: Tensor, noise: Noise = torch.randn_like) -> Tensor:
    """A draw of the Gaussian that sampling starts from, with the shape, dtype and device of ``like``."""
    return schedule.prior_std * noise(like)
