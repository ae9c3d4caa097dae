"""The sampling loop that all samplers share; a subclass writes only its step."""

import copy
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from litdiffusion.diffusion.denoisers.interface import AnyDenoiser
from litdiffusion.diffusion.levels import Level, Noise, Prediction
from litdiffusion.diffusion.samplers.grids import levels_for
from litdiffusion.diffusion.schedules import NoiseSchedule
from litdiffusion.errors import UserError
from litdiffusion.parts.described import Described


class State(NamedTuple):
    """One state of a trajectory: x (B, ...), its noise level, and the number of steps taken so far."""

    x: Tensor
    level: Level
    step: int = 0


class Predict(NamedTuple):
    """A denoiser with its class labels, called without gradients: ``predict(x, level) -> Prediction``."""

    denoiser: AnyDenoiser
    class_label: Tensor | None = None

    @property
    def schedule(self) -> NoiseSchedule:
        return self.denoiser.schedule

    @torch.no_grad()
    def __call__(self, x: Tensor, level: Level) -> Prediction:
        return self.denoiser(x, level, self.class_label)


class Sampler(Described):
    """Takes ``steps`` steps from the noisiest level to clean data.

    A subclass writes `step`, or `walk` if it calls the denoiser more than once per step or uses earlier predictions.

    Args:
        steps: number of steps; None: all levels of a chain, 250 in continuous time.
        grid: spacing of the levels: uniform (in time), quadratic, karras, log_snr or auto (see `grids`).
    """

    family: ClassVar[list[type["Sampler"]]] = []
    """All subclasses, in the order of definition."""
    name: ClassVar[str]
    """The name on the command line, ``sampler=name``; a sampler without one is not offered in messages."""
    respaceable: ClassVar[bool] = True
    """Whether fewer steps approximate the same distribution, only less accurately."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        Sampler.family.append(cls)

    def __init__(self, steps: int | None = None, grid: str = "uniform"):
        self.steps = steps
        self.grid = grid

    @classmethod
    def unfit(cls, schedule: NoiseSchedule) -> str | None:
        """The reason why this sampler does not fit the schedule, in a few words; None if it fits."""
        return "a single noise level has no steps down to clean data" if schedule.steps == 1 else None

    @property
    def needs_learned_variance(self) -> bool:
        """Whether it uses the learned variance of the net."""
        return False

    def check(self, schedule: NoiseSchedule, learned_variance: bool = True) -> None:
        """Raises a `UserError` if the schedule or ``steps`` does not fit, or if a learned variance is missing."""
        if self.needs_learned_variance and not learned_variance:
            raise UserError(
                "sampler.variance=learned needs a net trained with objective=hybrid; take posterior or forward"
            )
        if reason := self.unfit(schedule):
            fit = [other.name for other in Sampler.family if hasattr(other, "name") and not other.unfit(schedule)]
            name = getattr(self, "name", type(self).__name__)
            raise UserError(f"sampler={name} does not fit this process: {reason}; take sampler={', '.join(fit)}")
        self.levels(schedule)

    def levels(self, schedule: NoiseSchedule) -> list[Level]:
        """The visited levels, from the noisiest to clean data."""
        return levels_for(schedule, self.steps, self.grid)

    def calls(self, schedule: NoiseSchedule) -> int | None:
        """Network calls per sample; None if known only after sampling."""
        return len(self.levels(schedule)) - 1

    def prior(self, schedule: NoiseSchedule, like: Tensor, noise: Noise = torch.randn_like) -> Tensor:
        """The initial x: pure noise with the shape, dtype and device of ``like``."""
        return prior(schedule, like, noise)

    def step(self, x: Tensor, prediction: Prediction, now: Level, after: Level, noise: Noise) -> Tensor:
        """x at the cleaner level ``after``, from x (B, ...) and the denoiser's prediction at the level ``now``."""
        raise NotImplementedError

    def walk(self, predict: Predict, x: Tensor, levels: list[Level], noise: Noise) -> Iterator[Tensor]:
        """Yields x at ``levels[1]``, ``levels[2]``, ..., with one network call per step."""
        for now, after in pairwise(levels):
            x = self.step(x, predict(x, now), now, after, noise)
            yield x

    def trajectory(
        self,
        denoiser: AnyDenoiser,
        x: Tensor,
        class_label: Tensor | None = None,
        noise: Noise = torch.randn_like,
    ) -> Iterator[State]:
        """Yields every state. The first one holds x itself, which is drawn from `prior`."""
        levels = self.levels(denoiser.schedule)
        yield State(x, levels[0])
        states = self.walk(Predict(denoiser, class_label), x, levels, noise)
        for index, (level, state) in enumerate(zip(levels[1:], states, strict=True)):
            yield State(state, level, index + 1)

    def sample(
        self,
        denoiser: AnyDenoiser,
        x: Tensor,
        class_label: Tensor | None = None,
        noise: Noise = torch.randn_like,
    ) -> Tensor:
        """The last state of the trajectory from x: samples, shaped like x."""
        for state in self.trajectory(denoiser, x, class_label, noise):
            x = state.x
        return x

    def respaced(self, steps: int | None) -> "Sampler":
        """The same sampler with another number of steps."""
        other = copy.copy(self)
        other.steps = steps
        other.made_by = self.made_by and self.made_by.replaced(steps=steps)
        return other


def blank(count: int, shape: Sequence[int], device: torch.device | None = None) -> Tensor:
    """An uninitialised tensor for ``count`` samples, (count, *shape), in at least float32.

    In half precision, the default dtype of a ``bf16-true`` run, the small last steps of a sampler would be lost by
    rounding. The denoiser casts x to its net's dtype.
    """
    dtype = torch.promote_types(torch.get_default_dtype(), torch.float32)
    return torch.empty(count, *shape, dtype=dtype, device=device)


def prior(schedule: NoiseSchedule, like: Tensor, noise: Noise = torch.randn_like) -> Tensor:
    """A draw from the Gaussian prior at the noisiest level, with the shape, dtype and device of ``like``."""
    return schedule.prior_std * noise(like)


def without_signal(schedule: NoiseSchedule) -> str | None:
    """The reason why a sampler that divides by alpha does not fit the schedule; None if alpha > 0 at t = 1."""
    return "no signal is left at t = 1 (alpha = 0), and it divides by alpha" if schedule.loses_signal else None
