"""A variance-preserving chain of T steps, given by its table of betas; the only file that speaks of beta, alpha_bar."""

import warnings

import torch
from torch import Tensor

from litdiffusion.errors import UserError
from litdiffusion.schedules.base import NoiseSchedule
from litdiffusion.types import Level

PURE_NOISE = 0.1
"""Largest alpha at t = 1 that passes as pure noise: the prior then misses at most a tenth of the data's scale."""


class DiscreteSchedule(NoiseSchedule):
    """The chain ``x_i = sqrt(1 - beta_i) * x_{i-1} + sqrt(beta_i) * z``, i = 1..T, read at t = i / T.

    ``alpha² = alpha_bar_i = prod_{j <= i} (1 - beta_j)`` and ``sigma² = 1 - alpha_bar_i``; i = 0 is clean data. Between
    two levels ``log alpha_bar`` is linear in t (constant beta), so the chain is also a schedule in continuous time
    that passes through every level exactly.

    Args:
        betas: (T,) variances of the forward steps, each in (0, 1), T >= 2.

    Raises:
        UserError: fewer than two steps, or a beta outside (0, 1).

    Warns:
        UserWarning: where alpha at t = 1 exceeds 0.1, since sampling starts from pure noise.

    Source: Ho, Jain, Abbeel, "Denoising Diffusion Probabilistic Models", 2020, arXiv 2006.11239.
    """

    prior_std = 1.0

    def __init__(self, betas: Tensor):
        betas = betas.to(torch.float64)
        _check(betas)
        self.steps = len(betas)
        log_alpha_bar = torch.cat([betas.new_zeros(1), torch.log1p(-betas).cumsum(0)])
        # Plain tensors, not buffers: modules cast their buffers to the training precision.
        self._tables = {betas.device: (log_alpha_bar, *_scales(log_alpha_bar))}
        self._warn_of_signal_at_the_end()

    @property
    def label_range(self) -> tuple[float, float]:
        return 1.0, float(self.steps)

    def at(self, t: Tensor | float) -> Level:
        t = torch.as_tensor(t, dtype=torch.float64)
        start, end, fraction = self._cell(t)
        return Level(t, *_scales(torch.lerp(start, end, fraction)))

    def rates(self, t: Tensor | float) -> tuple[Tensor, Tensor]:
        t, alpha, sigma = self.at(t)
        start, end, _ = self._cell(t)
        alpha_rate = 0.5 * (end - start) * self.steps * alpha
        return alpha_rate, -alpha * alpha_rate / sigma

    def time(self, log_snr: Tensor) -> Tensor:
        log_alpha_bar = torch.nn.functional.logsigmoid(log_snr.to(torch.float64))
        table = self._on(log_snr.device)[0]
        cell = (torch.searchsorted(-table, -log_alpha_bar) - 1).clamp(0, self.steps - 1)
        fraction = (log_alpha_bar - table[cell]) / (table[cell + 1] - table[cell])
        return ((cell + fraction) / self.steps).clamp(0.0, 1.0)

    def snap(self, t: Tensor) -> Level:
        index = self._position(t).ceil().clamp(1, self.steps)
        alphas, sigmas = self._on(t.device)[1:]
        row = index.long()
        return Level(index / self.steps, alphas[row], sigmas[row])

    def previous(self, level: Level) -> Level:
        return self.at((self.label(level) - 1) / self.steps)

    def label(self, level: Level) -> Tensor:
        """The index i = t * T, as the nets of discrete chains expect it (an integer on the chain's own levels)."""
        return (level.t * self.steps).round()

    def grid(self, steps: int | None = None) -> list[Level]:
        steps = self.steps if steps is None else steps
        if not 1 <= steps <= self.steps:
            raise UserError(
                f"sampler steps = {steps} must lie in 1..{self.steps}, the length of the trained chain; "
                f"give fewer steps, or null for all of them"
            )
        indices = torch.linspace(self.steps, 0, steps + 1, dtype=torch.float64).round()
        return self.at(indices / self.steps).unbind()

    def _position(self, t: Tensor) -> Tensor:
        """t * T, a hair lower: i / T * T may exceed i by the last bit, and belongs to the cell that ends at i."""
        return t * (self.steps * (1 - 1e-14))

    def _cell(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``log alpha_bar`` at both ends of the cell ((i - 1) / T, i / T] that beta_i rules; the place of t in it."""
        table = self._on(t.device)[0]
        end = self._position(t).ceil().clamp(1, self.steps).long()
        return table[end - 1], table[end], (t * self.steps - end).add(1)

    def _on(self, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """``log alpha_bar``, alpha and sigma of the levels 0..T, each (T + 1,), on a device."""
        if device not in self._tables:
            self._tables[device] = tuple(table.to(device) for table in next(iter(self._tables.values())))
        return self._tables[device]

    def _warn_of_signal_at_the_end(self) -> None:
        alpha = self.at(1.0).alpha.item()
        if alpha > PURE_NOISE:
            warnings.warn(
                f"the noise schedule ends at alpha = {alpha:.3f} (alpha_bar = {alpha**2:.3f}), not at pure noise "
                f"(alpha <= {PURE_NOISE}): samples start from the wrong prior; raise beta_end or take more steps",
                stacklevel=3,
            )


def _scales(log_alpha_bar: Tensor) -> tuple[Tensor, Tensor]:
    """(alpha, sigma), exact to the last digits at both ends."""
    return (0.5 * log_alpha_bar).exp(), (-log_alpha_bar.expm1()).sqrt()


def _check(betas: Tensor) -> None:
    if betas.ndim != 1 or len(betas) < 2:
        raise UserError(f"a chain needs at least 2 steps, got {betas.numel()}; set schedule.steps=2 or more")
    bad = betas[~((betas > 0) & (betas < 1))]
    if len(bad):
        raise UserError(
            f"every beta must lie strictly between 0 and 1, got {bad[0].item():.4g} "
            f"({len(bad)} of {len(betas)} outside); change the schedule's ends or its number of steps"
        )
