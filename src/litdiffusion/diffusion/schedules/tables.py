"""The usual beta tables as chains, for any number of steps T >= 2.

The default betas of `LinearChain` need T > 20, those of `ScaledLinearChain` T > 12; shorter chains need others.
``zero_terminal_snr`` ends any of them at alpha = 0, see `DiscreteSchedule`.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from litdiffusion.diffusion.schedules.discrete import DiscreteSchedule
from litdiffusion.errors import UserError


class LinearChain(DiscreteSchedule):
    """Betas rising linearly from ``beta_start`` to ``beta_end``.

    The defaults 0.1 / T and 20 / T equal Ho's 1e-4 and 0.02 at T = 1000. For every T above 20 the chain ends equally
    close to pure noise (alpha is about exp(-5) at t = 1). As T grows it tends to the variance-preserving SDE.

    Source: Ho, Jain, Abbeel, "Denoising Diffusion Probabilistic Models", 2020, arXiv 2006.11239, section 4.
    """

    def __init__(
        self,
        steps: int = 1000,
        beta_start: float | None = None,
        beta_end: float | None = None,
        zero_terminal_snr: bool = False,
    ):
        start, end = _ends(steps, beta_start, beta_end, 0.1, 20.0)
        super().__init__(torch.linspace(start, end, steps, dtype=torch.float64), zero_terminal_snr)


class ScaledLinearChain(DiscreteSchedule):
    """Betas whose square roots rise linearly; between the same ends they are smaller than those of `LinearChain`.

    The defaults 0.85 / T and 12 / T are those of latent diffusion at T = 1000.

    Source: Rombach et al., "High-Resolution Image Synthesis with Latent Diffusion Models", 2021, arXiv 2112.10752
    (in its published configurations).
    """

    def __init__(
        self,
        steps: int = 1000,
        beta_start: float | None = None,
        beta_end: float | None = None,
        zero_terminal_snr: bool = False,
    ):
        start, end = _ends(steps, beta_start, beta_end, 0.85, 12.0)
        super().__init__(torch.linspace(start**0.5, end**0.5, steps, dtype=torch.float64) ** 2, zero_terminal_snr)


class CosineChain(DiscreteSchedule):
    """``alpha_bar(t) = cos²(pi / 2 * (t + offset) / (1 + offset))``, normalised to 1 at t = 0.

    Betas are at most ``max_beta``; with 1 the chain ends at alpha = 0.

    Source: Nichol, Dhariwal, "Improved Denoising Diffusion Probabilistic Models", 2021, arXiv 2102.09672, equation 17.
    """

    def __init__(
        self, steps: int = 1000, offset: float = 0.008, max_beta: float = 0.999, zero_terminal_snr: bool = False
    ):
        _check_steps(steps)
        betas = _betas(lambda t: torch.cos((t + offset) / (1 + offset) * math.pi / 2) ** 2, steps, max_beta)
        super().__init__(betas, zero_terminal_snr)


class SigmoidChain(DiscreteSchedule):
    """``alpha_bar(t) = 1 / (1 + exp((start + t * (end - start)) / tau))``, rescaled to fall from 1 to 0.

    Betas are at most ``max_beta``; with 1 the chain ends at alpha = 0.

    Source: Jabri, Fleet, Chen, "Scalable Adaptive Computation for Iterative Generation", 2022, arXiv 2212.11972.
    """

    def __init__(
        self,
        steps: int = 1000,
        start: float = -3.0,
        end: float = 3.0,
        tau: float = 1.0,
        max_beta: float = 0.999,
        zero_terminal_snr: bool = False,
    ):
        _check_steps(steps)
        if not (start < end and tau > 0):
            raise UserError(f"sigmoid needs start < end and tau > 0, got start={start}, end={end}, tau={tau}")
        edge = torch.sigmoid(torch.tensor(-end / tau, dtype=torch.float64))
        betas = _betas(lambda t: torch.sigmoid(-(t * (end - start) + start) / tau) - edge, steps, max_beta)
        super().__init__(betas, zero_terminal_snr)


def _betas(alpha_bar: Callable[[Tensor], Tensor], steps: int, max_beta: float) -> Tensor:
    """``beta_i = 1 - alpha_bar(i / T) / alpha_bar((i - 1) / T)``, at most ``max_beta``."""
    values = alpha_bar(torch.arange(steps + 1, dtype=torch.float64) / steps)
    return (1 - values[1:] / values[:-1]).clamp(max=max_beta)


def _ends(
    steps: int, start: float | None, end: float | None, start_rate: float, end_rate: float
) -> tuple[float, float]:
    """The first and the last beta; by default the rates divided by T."""
    _check_steps(steps)
    start = start_rate / steps if start is None else start
    end = end_rate / steps if end is None else end
    for name, value in (("beta_start", start), ("beta_end", end)):
        if not 0 < value < 1:
            raise UserError(
                f"schedule.{name} must lie strictly between 0 and 1, got {value:g} (T = {steps}; the default is "
                f"{start_rate:g}/T to {end_rate:g}/T); give it a value in (0, 1), or take schedule=cosine"
            )
    return start, end


def _check_steps(steps: int) -> None:
    if not isinstance(steps, int) or steps < 2:
        raise UserError(f"schedule.steps must be at least 2 and whole, got {steps!r}; 200 to 1000 are usual")
