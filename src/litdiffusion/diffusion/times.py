"""Time samplers: the noise levels that a net is trained on."""

import math
from abc import abstractmethod
from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor, nn

from litdiffusion.diffusion.levels import Level
from litdiffusion.diffusion.schedules import NoiseSchedule
from litdiffusion.errors import UserError
from litdiffusion.parts.described import Described

__all__ = ["LogNormalSigma", "LogitNormalTimes", "LossAwareTimes", "TimeSampler", "UniformTimes"]


class TimeSampler(Described, nn.Module):
    """Draws one training time per sample of a batch."""

    adaptive = False
    """Whether the distribution of times adapts to the losses, see `observe`."""

    def __init__(self, schedule: NoiseSchedule):
        super().__init__()
        self.schedule = schedule
        self._cache: dict[tuple[int, int, torch.device], Tensor] = {}

    def draw(self, x_0: Tensor, offset: Tensor | float | None = None) -> Level:
        """A level of shape (B, 1, ..., 1) for data x_0 (B, ...).

        The times of a batch are the quantiles ``(k - offset) / B``, k = B..1, with one ``offset`` in [0, 1) drawn for
        the whole batch. They cover the distribution of times evenly, which lowers the variance of the loss. A sample's
        position in the batch decides its stratum, so a batch should be in random order. A given ``offset``, e.g. 0.5,
        fixes the times; processes with the offsets ``(rank + u) / world`` together cover the distribution evenly.

        Source: Kingma, Salimans, Poole, Ho, "Variational Diffusion Models", 2021, arXiv 2107.00630, appendix I.1.
        """
        offset = torch.rand((), dtype=torch.float64, device=x_0.device) if offset is None else offset
        upper = self._upper_ends(len(x_0), x_0.ndim, x_0.device)
        return self.schedule.snap(self.quantile(upper - offset / len(x_0)))

    def _upper_ends(self, count: int, ndim: int, device: torch.device) -> Tensor:
        """``k / count``, k = count..1, of shape (count, 1, ..., 1); cached, because every batch needs the same."""
        key = count, ndim, device
        if key not in self._cache:
            ranks = torch.arange(count, 0, -1, dtype=torch.float64, device=device)
            self._cache = {key: (ranks / count).view(-1, *[1] * (ndim - 1))}
        return self._cache[key]

    @abstractmethod
    def quantile(self, u: Tensor) -> Tensor:
        """The u-quantile of the distribution of times, for u in (0, 1]; shaped like u."""

    def importance(self, t: Tensor) -> Tensor | None:
        """The weight ``p_uniform(t) / p(t)``, shaped like t, to correct for non-uniform times; None: no correction."""
        return None

    def observe(self, t: Tensor, losses: Tensor) -> None:
        """Updates an adaptive sampler with the weighted losses (n,) of a step at times t (n,), of all processes."""


class UniformTimes(TimeSampler):
    """Uniform on (0, 1]; on a discrete chain i = ceil(u * T), uniform on 1..T; on EDM's process, in log sigma."""

    def quantile(self, u: Tensor) -> Tensor:
        return self.schedule.time_at(u)


class LogitNormalTimes(TimeSampler):
    """``t = 1 / (1 + exp(-n))``, n ~ N(mean, std²): the middle of the path is more frequent than its ends.

    On EDM's process `NoiseSchedule.place`, which is linear in log sigma, has this distribution instead of t.

    Source: Esser et al., "Scaling Rectified Flow Transformers for High-Resolution Image Synthesis", 2024,
    arXiv 2403.03206, section 3.1, which takes mean = 0 and std = 1.
    """

    def __init__(self, schedule: NoiseSchedule, mean: float = 0.4, std: float = 1.0):
        super().__init__(schedule)
        self.mean, self.std = mean, _positive_std(std)

    def quantile(self, u: Tensor) -> Tensor:
        return self.schedule.time_at(torch.sigmoid(self.mean + self.std * _normal_quantile(u)))


class LogNormalSigma(TimeSampler):
    """``log(sigma / alpha * 0.5 / sigma_data) ~ N(mean, std²)``, clamped to the schedule's ends.

    The source's numbers are for data of std 0.5; ``sigma_data`` rescales them to the std of other data.

    Source: Karras, Aittala, Aila, Laine, 2022, arXiv 2206.00364, table 1 (P_mean = -1.2, P_std = 1.2).
    """

    def __init__(self, schedule: NoiseSchedule, mean: float = -1.2, std: float = 1.2, sigma_data: float = 0.5):
        super().__init__(schedule)
        if not sigma_data > 0:
            raise UserError(f"times.sigma_data must be positive, got {sigma_data}; it is the data's std")
        self.mean, self.std = mean + math.log(sigma_data / 0.5), _positive_std(std)

    def quantile(self, u: Tensor) -> Tensor:
        return self.schedule.time(-2 * (self.mean + self.std * _normal_quantile(u)))


class LossAwareTimes(TimeSampler):
    """Importance sampling with ``p(t) ~ sqrt(E[loss² | t])``, which minimises the variance of the estimated loss.

    Times are grouped into bins of equal width (on a chain as equal as whole levels allow). Every bin has a running
    mean of squared losses. Times are uniform until every bin has seen ``warmup`` losses; afterwards a fraction
    ``floor`` of them remains uniform. Losses are divided by p(t), so that their mean estimates the same loss as with
    uniform times. Checkpoints contain the running means.

    Source: Nichol, Dhariwal, "Improved Denoising Diffusion Probabilistic Models", 2021, arXiv 2102.09672, section 3.3
    (there with the last ten losses of every step of the chain instead of a running mean per bin).
    """

    adaptive = True
    ends: Tensor
    second_moment: Tensor
    seen: Tensor

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

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """The hook behind ``nn.Module.to``: the bins move to the net's device but stay in float64, as all times do."""
        super()._apply(lambda x: x.to(fn(x).device), recurse)  # type: ignore[no-untyped-call]
        return self

    def probabilities(self) -> Tensor:
        """Probability of each bin, shape (bins,); they sum to 1."""
        uniform = self.ends.diff()
        mass = uniform * self.second_moment.sqrt()
        known = (self.seen.min() >= self.warmup) & (mass.sum() > 0)
        return torch.where(known, (1 - self.floor) * mass / mass.sum() + self.floor * uniform, uniform)

    def quantile(self, u: Tensor) -> Tensor:
        p = self.probabilities()
        upper = p.cumsum(0)
        bin_ = torch.searchsorted(upper, u).clamp(max=len(p) - 1)
        within = (u - (upper[bin_] - p[bin_])) / p[bin_]
        return self.schedule.time_at(torch.lerp(self.ends[bin_], self.ends[bin_ + 1], within.clamp(0, 1)))

    def importance(self, t: Tensor) -> Tensor:
        return (self.ends.diff() / self.probabilities())[self._bin(t)]

    def observe(self, t: Tensor, losses: Tensor) -> None:
        kept = losses.isfinite()  # because a NaN would stay in the running mean
        bins, squares = self._bin(t), losses.where(kept, 0).to(torch.float64) ** 2
        counts = torch.zeros_like(self.seen).index_add_(0, bins, kept.to(bins.dtype))
        sums = torch.zeros_like(self.second_moment).index_add_(0, bins, squares)
        mean = sums / counts.clamp(min=1)
        keep = self.decay * (self.seen > 0).to(mean)  # 0 for a new bin, which starts at its first mean
        self.second_moment.copy_(
            torch.where(counts > 0, keep * self.second_moment + (1 - keep) * mean, self.second_moment)
        )
        self.seen.add_(counts)

    def _bin(self, t: Tensor) -> Tensor:
        """The index of the bin (lower, upper] that contains t, shaped like t."""
        place = self.schedule.place(t)
        # Reduced, because i / T * T may exceed i by the last bit, and level i belongs to the lower bin.
        return (torch.searchsorted(self.ends, place * (1 - 1e-14)) - 1).clamp(0, len(self.seen) - 1)


def _bin_ends(steps: int | None, bins: int) -> Tensor:
    """Ends of the bins, (bins + 1,), from 0 to 1; on a chain they are multiples of 1 / T, so it has at most T bins."""
    if steps is None:
        return torch.linspace(0, 1, bins + 1, dtype=torch.float64)
    return torch.linspace(0, steps, min(bins, steps) + 1, dtype=torch.float64).round() / steps


def _normal_quantile(u: Tensor) -> Tensor:
    """The u-quantile of the standard normal distribution, clamped to be finite at u = 0 and u = 1."""
    return torch.special.ndtri(u.clamp(1e-12, 1 - 1e-12))


def _positive_std(std: float) -> float:
    if not (std > 0 and math.isfinite(std)):
        raise UserError(f"times.std must be positive, got {std}; 1 to 1.2 are usual")
    return std
