"""Schedules in continuous time: the SDEs of score-based models, EDM's process, the straight path of flow matching."""

import math
from abc import abstractmethod

import torch
from torch import Tensor

from litdiffusion.diffusion.levels import CLEAN, Level
from litdiffusion.diffusion.schedules.base import NoiseSchedule
from litdiffusion.diffusion.schedules.ladder import scaled_sigmas
from litdiffusion.errors import UserError

LARGEST_NOISE_LABEL = 1000.0
"""Noise labels run from 0 to 1000, the scale that nets for discrete chains expect."""
DEFAULT_STEPS = 250
"""Number of steps of a sampler with ``steps=None``, since there is no chain that gives it."""
PROBES = 1001
RHO = 7.0
"""EDM's exponent rho of the spacing of noise levels."""


class ContinuousSchedule(NoiseSchedule):
    """A schedule with levels at all times in [t_min, 1], noise label 1000 * place, and grids evenly spaced in time."""

    def snap(self, t: Tensor) -> Level:
        return self.at(t.clamp(self.t_min, 1.0))

    def noise_label(self, level: Level) -> Tensor:
        return LARGEST_NOISE_LABEL * self.place(level.t)

    @property
    def noise_label_range(self) -> tuple[float, float]:
        ends = self.at(torch.tensor([self.t_min, 1.0], dtype=torch.float64))
        low, high = self.noise_label(ends).tolist()
        return low, high

    def grid(self, steps: int | None = None) -> list[Level]:
        """Levels from t = 1 to t_min, evenly spaced in time (for EDM in sigma^(1/7)), then clean data.

        None means 250 steps.
        """
        return [*self.at(self._times(steps)).unbind(), CLEAN]

    def _times(self, steps: int | None) -> Tensor:
        steps = DEFAULT_STEPS if steps is None else steps
        if steps < 1:
            raise UserError(f"sampler steps = {steps} must be at least 1; 20 to 1000 are usual")
        return torch.linspace(1.0, self.t_min, steps, dtype=torch.float64)

    def probe(self) -> Level:
        return self.at(torch.linspace(self.t_min, 1.0, PROBES, dtype=torch.float64))

    def at(self, t: Tensor | float) -> Level:
        t = torch.as_tensor(t, dtype=torch.float64)
        return Level(t, *self._scales(t))

    @abstractmethod
    def _scales(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """(alpha, sigma) at t."""


class VP(ContinuousSchedule):
    """The variance-preserving SDE ``dx = -beta/2 x dt + sqrt(beta) dw``, beta rising linearly with t.

    ``alpha = exp(-B/2)``, ``sigma = sqrt(1 - alpha²)``, ``B(t) = beta_min * t + (beta_max - beta_min) * t² / 2``.
    This is the limit of Ho's linear chain for many steps. Training times start at ``t_min``, because sigma ~ sqrt(t)
    near t = 0.

    Raises:
        UserError: unless 0 < beta_min <= beta_max and 0 < t_min < 1.

    Source: Song et al., "Score-Based Generative Modeling through Stochastic Differential Equations", 2020,
    arXiv 2011.13456, appendix B.
    """

    t_min = 0.0
    prior_std = 1.0
    preserves_variance = True

    def __init__(self, beta_min: float = 0.1, beta_max: float = 20.0, t_min: float = 1e-3):
        if not 0 < beta_min <= beta_max:
            raise UserError(f"need 0 < schedule.beta_min <= schedule.beta_max, got {beta_min} and {beta_max}")
        self.beta_min, self.beta_max = beta_min, beta_max
        self.t_min = checked_t_min(t_min)

    def _log_alpha(self, t: Tensor) -> Tensor:
        return -0.5 * t * (self.beta_min + 0.5 * t * (self.beta_max - self.beta_min))

    def _scales(self, t: Tensor) -> tuple[Tensor, Tensor]:
        log_alpha = self._log_alpha(t)
        return log_alpha.exp(), (-torch.expm1(2 * log_alpha)).sqrt()

    def rates(self, t: Tensor | float) -> tuple[Tensor, Tensor]:
        t, alpha, sigma = self.at(t)
        rate = self._alpha_rate(t, alpha)
        return rate, -alpha * rate / sigma

    def _alpha_rate(self, t: Tensor, alpha: Tensor) -> Tensor:
        return -0.5 * (self.beta_min + t * (self.beta_max - self.beta_min)) * alpha

    def time(self, log_snr: Tensor) -> Tensor:
        return self._time_of(0.5 * torch.nn.functional.logsigmoid(log_snr.to(torch.float64).clamp(min=-500)))

    def _time_of(self, log_alpha: Tensor) -> Tensor:
        """The root t of ``(beta_max - beta_min) t² / 4 + beta_min t / 2 + log alpha = 0``, without cancellation."""
        slope = self.beta_max - self.beta_min
        return (-4 * log_alpha / (self.beta_min + (self.beta_min**2 - 4 * slope * log_alpha).sqrt())).clamp(0, 1)


class SubVP(VP):
    """The sub-variance-preserving SDE: alpha as in `VP`, ``sigma = 1 - alpha²``, which never exceeds VP's sigma.

    Source: Song et al., 2020, arXiv 2011.13456, equation 14 and appendix B.
    """

    preserves_variance = False

    def _scales(self, t: Tensor) -> tuple[Tensor, Tensor]:
        log_alpha = self._log_alpha(t)
        return log_alpha.exp(), -torch.expm1(2 * log_alpha)

    def rates(self, t: Tensor | float) -> tuple[Tensor, Tensor]:
        t, alpha, _ = self.at(t)
        rate = self._alpha_rate(t, alpha)
        return rate, -2 * alpha * rate

    def time(self, log_snr: Tensor) -> Tensor:
        root = (0.5 * log_snr.to(torch.float64).clamp(-500, 500)).exp()  # alpha / (1 - alpha²)
        return self._time_of((2 * root / (1 + (1 + 4 * root**2).sqrt())).log())


class VE(ContinuousSchedule):
    """The variance-exploding SDE: alpha = 1, ``sigma = sigma_min * (sigma_max / sigma_min)^t``.

    At t = 0, its cleanest level, sigma = sigma_min; the last step of a sampler leads from there to clean data.

    Args:
        sigma_min, sigma_max: stds of the noise at both ends, in units of ``sigma_data``.
        sigma_data: std of the data; None: the ends are in the data's own units.

    Raises:
        UserError: unless 0 < sigma_min < sigma_max and sigma_data > 0.

    Source: Song et al., 2020, arXiv 2011.13456, appendix C.
    """

    t_min = 0.0

    def __init__(self, sigma_min: float = 0.01, sigma_max: float = 50.0, sigma_data: float | None = 1.0):
        self.sigma_min, self.sigma_max = scaled_sigmas(sigma_min, sigma_max, sigma_data)
        self.sigma_data = sigma_data
        self._log = math.log(sigma_max / sigma_min)

    @property
    def prior_std(self) -> float:
        return self.sigma_max

    def _scales(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return torch.ones_like(t), self.sigma_min * (self._log * t).exp()

    def rates(self, t: Tensor | float) -> tuple[Tensor, Tensor]:
        sigma = self.at(t).sigma
        return torch.zeros_like(sigma), self._log * sigma

    def time(self, log_snr: Tensor) -> Tensor:
        return ((-0.5 * log_snr.to(torch.float64) - math.log(self.sigma_min)) / self._log).clamp(0, 1)


class LinearSigma(ContinuousSchedule):
    """EDM's process: alpha = 1, ``sigma = sigma_max * t``. The noise label is linear in log sigma.

    Args:
        sigma_min, sigma_max: stds of the noise at both ends, in units of ``sigma_data``.
        sigma_data: std of the data; None: the ends are in the data's own units, as the source's are, for data of std
            0.5.

    Raises:
        UserError: unless 0 < sigma_min < sigma_max and sigma_data > 0.

    Source: Karras, Aittala, Aila, Laine, "Elucidating the Design Space of Diffusion-Based Generative Models", 2022,
    arXiv 2206.00364, table 1 (its noise label is log(sigma) / 4).
    """

    def __init__(self, sigma_min: float = 0.002, sigma_max: float = 80.0, sigma_data: float | None = 1.0):
        self.sigma_min, self.sigma_max = scaled_sigmas(sigma_min, sigma_max, sigma_data)
        self.sigma_data = sigma_data

    @property
    def t_min(self) -> float:
        return self.sigma_min / self.sigma_max

    @property
    def prior_std(self) -> float:
        return self.sigma_max

    def _scales(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return torch.ones_like(t), self.sigma_max * t

    def rates(self, t: Tensor | float) -> tuple[Tensor, Tensor]:
        t = torch.as_tensor(t, dtype=torch.float64)
        return torch.zeros_like(t), torch.full_like(t, self.sigma_max)

    def time(self, log_snr: Tensor) -> Tensor:
        return ((-0.5 * log_snr.to(torch.float64)).exp() / self.sigma_max).clamp(0, 1)

    def place(self, t: Tensor) -> Tensor:
        return 1 - t.log() / math.log(self.t_min)

    def time_at(self, place: Tensor) -> Tensor:
        return self.t_min ** (1 - place)

    def place_rate(self, t: Tensor) -> Tensor:
        return -1 / (t * math.log(self.t_min))

    def _times(self, steps: int | None) -> Tensor:
        """Times evenly spaced in sigma^(1/7) (equation 5); evenly spaced in time, most levels would be pure noise."""
        place = torch.linspace(0, 1, len(super()._times(steps)), dtype=torch.float64)
        return lerp_in_root(torch.tensor(1.0), torch.tensor(self.t_min, dtype=torch.float64), place)


class LinearFlow(ContinuousSchedule):
    """The straight path of flow matching: ``alpha = 1 - t``, ``sigma = t``; no signal is left at t = 1.

    Source: Lipman et al., "Flow Matching for Generative Modeling", 2022, arXiv 2210.02747 (there time runs the other
    way, with sigma_min = 0); Liu, Gong, Liu, "Flow Straight and Fast", 2022, arXiv 2209.03003.
    """

    t_min = 0.0
    prior_std = 1.0

    def __init__(self, t_min: float = 1e-4):
        self.t_min = checked_t_min(t_min)

    def _scales(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return 1 - t, t

    def rates(self, t: Tensor | float) -> tuple[Tensor, Tensor]:
        one = torch.ones_like(torch.as_tensor(t, dtype=torch.float64))
        return -one, one

    def time(self, log_snr: Tensor) -> Tensor:
        return torch.sigmoid(-0.5 * log_snr.to(torch.float64))

    def grid(self, steps: int | None = None) -> list[Level]:
        """Levels evenly spaced in time from 1 to 0; no short last step is needed, as nothing is singular at t = 0."""
        count = len(self._times(steps))
        return self.at(torch.linspace(1.0, 0.0, count + 1, dtype=torch.float64)).unbind()


def lerp_in_root(first: Tensor, last: Tensor, place: Tensor) -> Tensor:
    """Interpolation linear in the 7th root, ``first`` at place 0 and ``last`` at place 1, (n,): EDM's equation 5."""
    first, last = first ** (1 / RHO), last ** (1 / RHO)
    return (first + place * (last - first)) ** RHO


def checked_t_min(t_min: float) -> float:
    """``t_min`` itself; raises a `UserError` unless 0 < t_min < 1."""
    if not 0 < t_min < 1:
        raise UserError(f"schedule.t_min must lie strictly between 0 and 1, got {t_min}; 1e-3 to 1e-5 are usual")
    return t_min
