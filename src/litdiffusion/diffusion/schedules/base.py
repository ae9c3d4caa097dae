"""What every noise schedule answers."""

from abc import ABC, abstractmethod
from functools import cached_property

import torch
from torch import Tensor

from litdiffusion.diffusion.levels import Level
from litdiffusion.parts.described import Described


class NoiseSchedule(Described, ABC):
    """A map from time to noise level; SNR falls strictly with t.

    t = 1 is the noisiest level, t = 0 clean data or the cleanest level that the process has. Times from ``t_min`` to 1
    are trained on.
    """

    steps: int | None = None
    """Number T of levels of a discrete chain; None for a process in continuous time."""
    preserves_variance: bool = False
    """Whether alpha² + sigma² = 1 at every time."""

    @property
    @abstractmethod
    def t_min(self) -> float:
        """The cleanest time that is trained on; sigma > 0 there."""

    @property
    @abstractmethod
    def prior_std(self) -> float:
        """Deviation of the Gaussian that sampling starts from."""

    @property
    @abstractmethod
    def noise_label_range(self) -> tuple[float, float]:
        """The noise labels of the cleanest and the noisiest level that are trained on."""

    @abstractmethod
    def at(self, t: Tensor | float) -> Level:
        """The level at time t, shaped like t, in float64."""

    @abstractmethod
    def rates(self, t: Tensor | float) -> tuple[Tensor, Tensor]:
        """``(d alpha / dt, d sigma / dt)`` at t >= t_min, shaped like t, in float64."""

    @abstractmethod
    def time(self, log_snr: Tensor) -> Tensor:
        """The inverse: the time at which ``log(alpha² / sigma²)`` has this value, within [0, 1]."""

    def at_angle(self, angle: Tensor) -> Level:
        """The level of which ``atan(sigma / alpha)`` is ``angle``, shaped like it, on the CPU."""
        angle = angle.detach().cpu().double()
        # In float32 pi / 2 lies beyond itself, where the cosine is negative.
        return self.at(self.time(2 * (angle.cos().clamp(min=0).log() - angle.sin().log())))

    @abstractmethod
    def snap(self, t: Tensor) -> Level:
        """The level that training at time t uses: the one at t, or the next noisier one of a discrete chain."""

    @abstractmethod
    def noise_label(self, level: Level) -> Tensor:
        """What the net is told of the level, shaped like ``level.t``."""

    @abstractmethod
    def grid(self, steps: int | None = None) -> list[Level]:
        """``steps + 1`` 0-dimensional levels from t = 1 down to clean data; None takes every level of a chain."""

    @abstractmethod
    def probe(self) -> Level:
        """Levels (n,) that stand for all that are trained on, for checks: every one of a chain."""

    def place(self, t: Tensor) -> Tensor:
        """Where a time stands between the cleanest level (0) and the noisiest (1), even in what a net is told of it.

        Time itself, but where time is sigma and nearly all of it pure noise. Laws of training times are laws of places.
        """
        return t

    def time_at(self, place: Tensor) -> Tensor:
        """The inverse of `place`."""
        return place

    def place_rate(self, t: Tensor) -> Tensor:
        """``d place / dt``, shaped like t."""
        return torch.ones_like(t)

    @cached_property
    def loses_signal(self) -> bool:
        """Whether alpha = 0 at t = 1, where sigma / alpha has no value."""
        return self.at(1.0).alpha.item() == 0

    @cached_property
    def explodes(self) -> bool:
        """Whether alpha = 1 at every level: noise is added to data that keep their scale."""
        return bool(torch.all(self.probe().alpha == 1))
