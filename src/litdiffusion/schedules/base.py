"""What every noise schedule answers."""

from abc import ABC, abstractmethod

from torch import Tensor

from litdiffusion.types import Level


class NoiseSchedule(ABC):
    """A map from time to noise level: t = 0 is clean data, t = 1 the noisiest level; SNR falls strictly with t."""

    @property
    @abstractmethod
    def prior_std(self) -> float:
        """Deviation of the Gaussian that sampling starts from."""

    @property
    @abstractmethod
    def label_range(self) -> tuple[float, float]:
        """The noise labels of the cleanest and the noisiest level that are trained on."""

    @abstractmethod
    def at(self, t: Tensor | float) -> Level:
        """The level at time t, shaped like t, in float64."""

    @abstractmethod
    def rates(self, t: Tensor | float) -> tuple[Tensor, Tensor]:
        """``(d alpha / dt, d sigma / dt)`` at t > 0, shaped like t, in float64."""

    @abstractmethod
    def time(self, log_snr: Tensor) -> Tensor:
        """The inverse: the time at which ``log(alpha² / sigma²)`` has this value, within [0, 1]."""

    @abstractmethod
    def snap(self, t: Tensor) -> Level:
        """The level that training at time t uses: the one at t, or the next noisier one of a discrete chain."""

    @abstractmethod
    def previous(self, level: Level) -> Level:
        """The next cleaner level of a discrete chain."""

    @abstractmethod
    def label(self, level: Level) -> Tensor:
        """What the net is told of the level, shaped like ``level.t``."""

    @abstractmethod
    def grid(self, steps: int | None = None) -> list[Level]:
        """``steps + 1`` 0-dimensional levels from t = 1 down to clean data; None takes every level of a chain."""
