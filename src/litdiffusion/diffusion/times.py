"""Which times to train on."""

import math
from abc import abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn

from litdiffusion.diffusion.levels import Level
from litdiffusion.diffusion.schedules import NoiseSchedule
from litdiffusion.errors import UserError
from litdiffusion.parts.described import Described


class TimeSampler(Described, nn.Module):
    """Draws one training time per sample of a batch."""

    adaptive = False
    """Whether it learns from the losses, see `observe`."""

    def __init__(self, schedule: NoiseSchedule):
        super().__init__()
        self.schedule = schedule
        self._kept: dict[tuple[int, int, torch.device], Tensor] = {}

    def draw(self, x_0: Tensor, offset: Tensor | float | None = None) -> Level:
        """A level of shape (B, 1, ..., 1) for data x_0 (B, ...).

        The times of a batch are the quantiles ``(k - offset) / B``, k = B..1, with one ``offset`` in [0, 1) drawn for
        the whole batch: together they cover the sampler's law evenly, which lowers the variance of the loss. The k-th
        place of a batch always gets a time of the k-th stratum, so a batch should be in random order. A given
        ``offset`` (0.5, say) fixes the times; processes with offsets ``(rank + u) / world`` cover the law together.

        Source: Kingma, Salimans, Poole, Ho, "Variational Diffusion Models", 2021, arXiv 2107.00630, appendix I.1.
        """
        offset = torch.rand((), dtype=torch.float64, device=x_0.device) if offset is None else offset
        upper = self._upper_ends(len(x_0), x_0.ndim, x_0.device)
        return self.schedule.snap(self.quantile(upper - offset / len(x_0)))

    def _upper_ends(self, count: int, ndim: int, device: torch.device) -> Tensor:
        """``k / count``, k = count..1, of shape (count, 1, ..., 1); kept, since every batch needs the same."""
        key = count, ndim, device
        if key not in self._kept:
            ranks = torch.arange(count, 0, -1, dtype=torch.float64, device=device)
            self._kept = {key: (ranks / count).view(-1, *[1] * (ndim - 1))}
        return self._kept[key]

    @abstractmethod
    def quantile(self, u: Tensor) -> Tensor:
        """The time below which a share ``u`` in (0, 1] of the draws falls, shaped like u."""

    def importance(self, t: Tensor) -> Tensor | None:
        """``p_uniform(t) / p(t)``, shaped like t, where draws should count as if they were uniform; else None."""
        return None

    def observe(self, t: Tensor, losses: Tensor) -> None:
        """Takes in the weighted losses (n,) of a step at times t (n,), of all processes; an adaptive sampler learns."""


class UniformTimes(TimeSampler):
    """Uniform on (0, 1]; on a discrete chain i = ceil(u * T), uniform on 1..T; on EDM's process in log sigma."""

    def quantile(self, u: Tensor) -> Tensor:
        return self.schedule.time_at(u)


class LogitNormalTimes(TimeSampler):
    """``t = 1 / (1 + exp(-n))``, n ~ N(mean, std²): the middle of the path more often than its ends.

    On EDM's process the place in log sigma has this law, as time has elsewhere.

    Source: Esser et al., "Scaling Rectified Flow Transformers for High-Resolution Image Synthesis", 2024,
    arXiv 2403.03206, section 3.1.
    """

    def __init__(self, schedule: NoiseSchedule, mean: float = 0.0, std: float = 1.0):
        super().__init__(schedule)
        self.mean, self.std = mean, _positive_std(std)

    def quantile(self, u: Tensor) -> Tensor:
        return self.schedule.time_at(torch.sigmoid(self.mean + self.std * _normal_quantile(u)))


class LogNormalSigma(TimeSampler):
    """``log(sigma / alpha * 0.5 / sigma_data) ~ N(mean, std²)``, cut off at the schedule's ends.

    The source's numbers are for data of deviation 0.5; sigma_data carries them to other data.

    Source: Karras, Aittala, Aila, Laine, 2022, arXiv 2206.00364, table 1 (P_mean = -1.2, P_std = 1.2).
    """

    def __init__(self, schedule: NoiseSchedule, mean: float = -1.2, std: float = 1.2, sigma_data: float = 0.5):
        super().__init__(schedule)
        if not sigma_data > 0:
            raise UserError(f"times.sigma_data must be positive, got {sigma_data}: the data's deviation")
        self.mean, self.std = mean + math.log(sigma_data / 0.5), _positive_std(std)

    def quantile(self, u: Tensor) -> Tensor:
        return self.schedule.time(-2 * (self.mean + self.std * _normal_quantile(u)))


class LossAwareTimes(TimeSampler):
    """Importance sampling: ``p(t) ~ sqrt(E[loss² | t])``, the law that makes the loss's gradient least noisy.

    Times fall into bins of equal width (on a chain as equal as whole levels allow); each keeps a running mean of
    squared losses. Until every bin was seen ``warmup`` times the law is uniform; a share ``floor`` stays so for ever.
    Losses are divided by p(t), so that their mean estimates the same loss as uniform times do. The running means are in
    every checkpoint.

    Source: Nichol, Dhariwal, "Improved Denoising Diffusion Probabilistic Models", 2021, arXiv 2102.09672, section 3.3
    (with the last ten losses of every step of the chain in place of a running mean per bin).
    """

    adaptive = True

    def __init__(
        self, schedule: NoiseSchedule, bins: int = 100, decay: float = 0.9, warmup: int = 10, floor: float = 0.01
    ):
        super().__init__(schedule)
        for name, fits, allowed in (
            ("bins", bins >= 1, "at least 1"),
            ("decay", 0 <= decay < 1, "in [0, 1)"),
            ("warmup", warmup >= 1, "at least 1"),
            ("floor", 0 < floor <= 1, "in (0, 1]"),
        ):
            if not fits:
                raise UserError(f"times.{name} must be {allowed}, got {locals()[name]}")
        self.decay, self.warmup, self.floor = decay, warmup, floor
        self.register_buffer("ends", _bin_ends(schedule.steps, bins), persistent=False)
        count = len(self.ends) - 1
        self.register_buffer("second_moment", torch.zeros(count, dtype=torch.float64))
        self.register_buffer("seen", torch.zeros(count, dtype=torch.int64))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "LossAwareTimes":
        """The hook of `nn.Module` below ``to``: bins go to the net's device, and stay in float64 as all times do."""
        return super()._apply(lambda x: x.to(fn(x).device), recurse)

    def probabilities(self) -> Tensor:
        """Of each bin, (bins,), summing to 1."""
        uniform = self.ends.diff()
        mass = uniform * self.second_moment.sqrt()
        if self.seen.min() < self.warmup or not mass.sum() > 0:
            return uniform
        return (1 - self.floor) * mass / mass.sum() + self.floor * uniform

    def quantile(self, u: Tensor) -> Tensor:
        p = self.probabilities()
        upper = p.cumsum(0)
        bin_ = torch.searchsorted(upper, u).clamp(max=len(p) - 1)
        within = (u - (upper[bin_] - p[bin_])) / p[bin_]
        return self.schedule.time_at(torch.lerp(self.ends[bin_], self.ends[bin_ + 1], within.clamp(0, 1)))

    def importance(self, t: Tensor) -> Tensor:
        return (self.ends.diff() / self.probabilities())[self._bin(t)]

    def observe(self, t: Tensor, losses: Tensor) -> None:
        kept = losses.isfinite()
        bins, squares = self._bin(t[kept]), losses[kept].to(torch.float64) ** 2
        counts = torch.zeros_like(self.seen).index_add_(0, bins, torch.ones_like(bins))
        sums = torch.zeros_like(self.second_moment).index_add_(0, bins, squares)
        mean = sums / counts.clamp(min=1)
        keep = self.decay * (self.seen > 0).to(mean)
        self.second_moment.copy_(
            torch.where(counts > 0, keep * self.second_moment + (1 - keep) * mean, self.second_moment)
        )
        self.seen.add_(counts)

    def _bin(self, t: Tensor) -> Tensor:
        """The place of the bin (lower, upper] that holds t; a hair lower, as i / T * T may exceed i by the last bit."""
        place = self.schedule.place(t)
        return (torch.searchsorted(self.ends, place * (1 - 1e-14)) - 1).clamp(0, len(self.seen) - 1)


def _bin_ends(chain: int | None, bins: int) -> Tensor:
    """(bins + 1,) from 0 to 1; every level of a chain belongs to one bin whole, so it has at most its length."""
    if chain is None:
        return torch.linspace(0, 1, bins + 1, dtype=torch.float64)
    return torch.linspace(0, chain, min(bins, chain) + 1, dtype=torch.float64).round() / chain


def _normal_quantile(u: Tensor) -> Tensor:
    """The standard normal's, finite at both ends."""
    return torch.special.ndtri(u.clamp(1e-12, 1 - 1e-12))


def _positive_std(std: float) -> float:
    if not (std > 0 and math.isfinite(std)):
        raise UserError(f"times.std must be positive, got {std}; 1 to 1.2 are usual")
    return std
