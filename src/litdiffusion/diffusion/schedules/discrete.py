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

    The last beta may be 1. Then no signal is left at t = 1 (zero terminal SNR), and sampling starts from the exact
    prior. ``log alpha_bar`` is infinite there, so on such a chain alpha is linear in t between two levels. Rows that
    divide by alpha, epsilon and score, cannot be decoded at t = 1.

    Args:
        betas: (T,) variances of the forward steps, each in (0, 1), the last one in (0, 1], T >= 2.
        zero_terminal_snr: changes all betas so that the chain ends at alpha = 0 and alpha_1 stays as it is:
            ``alpha_i <- (alpha_i - alpha_T) * alpha_1 / (alpha_1 - alpha_T)``.

    Raises:
        UserError: for fewer than two steps, or a beta out of range.

    Warns:
        UserWarning: if alpha at t = 1 exceeds 0.1, because sampling starts from pure noise.

    Source: Ho, Jain, Abbeel, "Denoising Diffusion Probabilistic Models", 2020, arXiv 2006.11239; zero terminal SNR:
    Lin, Liu, Li, Yang, "Common Diffusion Noise Schedules and Sample Steps are Flawed", 2023, arXiv 2305.08891,
    algorithm 1.
    """

    prior_std = 1.0
    preserves_variance = True

    def __init__(self, betas: Tensor | Sequence[float], zero_terminal_snr: bool = False):
        betas = torch.as_tensor(betas, dtype=torch.float64)
        _check(betas)
        log_alpha_bar = torch.cat([betas.new_zeros(1), torch.log1p(-betas).cumsum(0)])
        self._is_linear_in_alpha = zero_terminal_snr or bool(betas[-1] == 1)
        alpha = (0.5 * log_alpha_bar).exp()
        if zero_terminal_snr:
            alpha[1:] = (alpha[1:] - alpha[-1]) * (alpha[1] / (alpha[1] - alpha[-1]))
        super().__init__(alpha if self._is_linear_in_alpha else log_alpha_bar)
        self._warn_if_signal_remains()

    def _scales(self, coordinate: Tensor) -> tuple[Tensor, Tensor]:
        """(alpha, sigma), with all digits at both ends of the chain."""
        if self._is_linear_in_alpha:
            return coordinate, ((1 - coordinate) * (1 + coordinate)).sqrt()
        return (0.5 * coordinate).exp(), (-coordinate.expm1()).sqrt()

    def _coordinate(self, log_snr: Tensor) -> Tensor:
        log_alpha_bar = torch.nn.functional.logsigmoid(log_snr)
        return (0.5 * log_alpha_bar).exp() if self._is_linear_in_alpha else log_alpha_bar

    def _rates(self, slope: Tensor, level: Level) -> tuple[Tensor, Tensor]:
        alpha_rate = slope if self._is_linear_in_alpha else 0.5 * slope * level.alpha
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
    fits = (betas > 0) & (betas < 1)
    fits[-1] |= betas[-1] == 1
    bad = betas[~fits]
    if len(bad):
        raise UserError(
            f"every beta must lie strictly between 0 and 1, only the last one may be 1, got {bad[0].item():.4g} "
            f"({len(bad)} of {len(betas)} outside); change the schedule's ends or its number of steps"
        )
