"""The interface of all noise schedules."""

from abc import ABC, abstractmethod
from functools import cached_property

import torch
from torch import Tensor

from litdiffusion.diffusion.levels import Level
from litdiffusion.parts.described import Described


class NoiseSchedule(Described, ABC):
    """A map from time to noise level; the SNR decreases strictly with t.

    t = 1 is the noisiest level, t = 0 clean data or the cleanest level of the process. Training uses times from
    ``t_min`` to 1.
    """

    steps: int | None = None
    """Number T of levels of a discrete chain; None for a process in continuous time."""
    sigma_data: float | None = 1.0
    """Std of the data that the levels are made for; None: the levels are in the data's own units."""
    preserves_variance: bool = False
    """Whether alpha² + sigma² = 1 at every time."""

    @property
    @abstractmethod
    def t_min(self) -> float:
        """The cleanest training time; sigma > 0 there."""

    @property
    @abstractmethod
    def prior_std(self) -> float:
        """Std of the Gaussian prior that sampling starts from."""

    @property
    @abstractmethod
    def noise_label_range(self) -> tuple[float, float]:
        """The noise labels of the cleanest and the noisiest training level."""

    @abstractmethod
    def at(self, t: Tensor | float) -> Level:
        """The level at time t, shaped like t, in float64."""

    @abstractmethod
    def rates(self, t: Tensor | float) -> tuple[Tensor, Tensor]:
        """``(d alpha / dt, d sigma / dt)`` at t >= t_min, shaped like t, in float64."""

    @abstractmethod
    def time(self, log_snr: Tensor) -> Tensor:
        """The inverse of `at`: the time at which ``log(alpha² / sigma²) = log_snr``, clamped to [0, 1]."""

    def at_angle(self, angle: Tensor) -> Level:
        """The level with ``atan(sigma / alpha) = angle``, shaped like ``angle``, on the CPU."""
        angle = angle.detach().cpu().double()
        # Clamped, because pi / 2 rounded to float32 exceeds pi / 2 and has a negative cosine.
        return self.at(self.time(2 * (angle.cos().clamp(min=0).log() - angle.sin().log())))

    @abstractmethod
    def snap(self, t: Tensor) -> Level:
        """The level that training uses for time t: the level at t, on a discrete chain level i = ceil(t * T)."""

    @abstractmethod
    def noise_label(self, level: Level) -> Tensor:
        """The noise label that the net is given for a level, shaped like ``level.t``."""

    @abstractmethod
    def grid(self, steps: int | None = None) -> list[Level]:
        """``steps + 1`` 0-dimensional levels from t = 1 down to clean data; None takes every level of a chain."""

    @abstractmethod
    def probe(self) -> Level:
        """Training levels (n,) for checks: all levels of a chain, or a fine grid in continuous time."""

    def place(self, t: Tensor) -> Tensor:
        """The position of t between the cleanest (0) and the noisiest level (1), linear in the noise label.

        It is t itself, except on EDM's process, where t is proportional to sigma and most times are pure noise. Uniform
        training times are uniform in this position.
        """
        return t

    def time_at(self, place: Tensor) -> Tensor:
        """The inverse of `place`: the time at a position in [0, 1]."""
        return place

    def place_rate(self, t: Tensor) -> Tensor:
        """``d place / dt``, shaped like t."""
        return torch.ones_like(t)

    @cached_property
    def loses_signal(self) -> bool:
        """Whether alpha = 0 at t = 1, so that sigma / alpha is infinite there."""
        return self.at(1.0).alpha.item() == 0

    @cached_property
    def explodes(self) -> bool:
        """Whether alpha = 1 at every level: noise is added and the data keep their scale (variance exploding)."""
        return bool(torch.all(self.probe().alpha == 1))
