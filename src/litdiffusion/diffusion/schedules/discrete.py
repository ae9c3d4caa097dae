"""The variance-preserving chain of T steps, defined by its table of betas."""

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

from litdiffusion.diffusion.levels import Level
from litdiffusion.diffusion.schedules.chain import Chain
from litdiffusion.errors import UserError

PURE_NOISE = 0.1
"""Largest alpha at t = 1 that counts as pure noise: the prior then ignores at most a tenth of the data's scale."""


class DiscreteSchedule(Chain):
    """The chain ``x_i = sqrt(1 - beta_i) * x_{i-1} + sqrt(beta_i) * z``, i = 1..T, read at t = i / T.

    ``alpha² = alpha_bar_i = prod_{j <= i} (1 - beta_j)`` and ``sigma² = 1 - alpha_bar_i``; i = 0 is clean data. Between
    two levels ``log alpha_bar`` is linear in t (constant beta).

    Args:
        betas: (T,) variances of the forward steps, each in (0, 1), T >= 2.

    Raises:
        UserError: for fewer than two steps, or a beta outside (0, 1).

    Warns:
        UserWarning: if alpha at t = 1 exceeds 0.1, because sampling starts from pure noise.

    Source: Ho, Jain, Abbeel, "Denoising Diffusion Probabilistic Models", 2020, arXiv 2006.11239.
    """

    prior_std = 1.0
    preserves_variance = True

    def __init__(self, betas: Tensor | Sequence[float]):
        betas = torch.as_tensor(betas, dtype=torch.float64)
        _check(betas)
        super().__init__(torch.cat([betas.new_zeros(1), torch.log1p(-betas).cumsum(0)]))
        self._warn_if_signal_remains()

    @staticmethod
    def _scales(log_alpha_bar: Tensor) -> tuple[Tensor, Tensor]:
        """(alpha, sigma), with all digits at both ends of the chain."""
        return (0.5 * log_alpha_bar).exp(), (-log_alpha_bar.expm1()).sqrt()

    @staticmethod
    def _coordinate(log_snr: Tensor) -> Tensor:
        return torch.nn.functional.logsigmoid(log_snr)

    @staticmethod
    def _rates(slope: Tensor, level: Level) -> tuple[Tensor, Tensor]:
        alpha_rate = 0.5 * slope * level.alpha
        return alpha_rate, -level.alpha * alpha_rate / level.sigma

    def _warn_if_signal_remains(self) -> None:
        alpha = self.at(1.0).alpha.item()
        if alpha > PURE_NOISE:
            warnings.warn(
                f"the noise schedule ends at alpha = {alpha:.3f} (alpha_bar = {alpha**2:.3f}), not at pure noise "
                f"(alpha <= {PURE_NOISE}): samples start from the wrong prior; raise beta_end or take more steps",
                stacklevel=3,
            )


def _check(betas: Tensor) -> None:
    if betas.ndim != 1 or len(betas) < 2:
        raise UserError(f"a chain needs at least 2 steps, got {betas.numel()}; set schedule.steps=2 or more")
    bad = betas[~((betas > 0) & (betas < 1))]
    if len(bad):
        raise UserError(
            f"every beta must lie strictly between 0 and 1, got {bad[0].item():.4g} "
            f"({len(bad)} of {len(betas)} outside); change the schedule's ends or its number of steps"
        )
