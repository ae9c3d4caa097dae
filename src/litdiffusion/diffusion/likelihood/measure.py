"""The negative log-likelihood of data by whichever way their process has."""

from math import prod

from torch import Tensor, nn

from litdiffusion.diffusion.levels import seeded_noise
from litdiffusion.diffusion.likelihood.bits import byte_nats, dequantised
from litdiffusion.diffusion.likelihood.bound import variational_bound
from litdiffusion.diffusion.likelihood.divergence import Divergence, Exact, Hutchinson
from litdiffusion.diffusion.likelihood.flow import flow_log_likelihood

EXACT_UP_TO = 16
"""Coordinates whose divergence is taken exactly where nothing else is asked for."""


def divergence_for(coordinates: int, probes: int | None, seed: int) -> Divergence:
    """Exact for a few coordinates where no number of ``probes`` is given, else Hutchinson's estimate (1 if None)."""
    if probes is None and coordinates <= EXACT_UP_TO:
        return Exact()
    return Hutchinson(probes or 1, seed=seed)


def flow_nats(
    denoiser: nn.Module,
    x_0: Tensor,
    bytes: bool,
    divergence: Divergence,
    seed: int = 0,
    class_label: Tensor | None = None,
    rtol: float = 1e-5,
    atol: float = 1e-5,
) -> Tensor:
    """``-log p(x_0)`` (B,) in nats by the probability flow; of ``bytes`` an upper bound on their code length."""
    x = dequantised(x_0, seed) if bytes else x_0
    found = flow_log_likelihood(denoiser, x, class_label, divergence, rtol, atol).log_density
    return byte_nats(found, prod(x_0.shape[1:])) if bytes else -found


def quick_nats(
    denoiser: nn.Module, x_0: Tensor, bytes: bool, steps: int, seed: int = 0, class_label: Tensor | None = None
) -> Tensor | None:
    """``-log p`` (B,) in nats at the cost of some ``steps`` network calls, good enough to follow a training.

    On a chain, and of bytes in any process, the variational bound of the chain of ``steps`` levels (forward variances,
    or the learned ones), from one draw of noise: it lies above the bound of more levels. Of other data in continuous
    time the probability flow, to a relative tolerance of 1e-3. A single level has no likelihood: None.
    """
    schedule = denoiser.schedule
    if schedule.steps == 1:
        return None
    if schedule.steps is None and not bytes:
        divergence = divergence_for(prod(x_0.shape[1:]), None, seed)
        return flow_nats(denoiser, x_0, bytes, divergence, seed, class_label, rtol=1e-3, atol=1e-3)
    variance = "learned" if getattr(denoiser, "learned_variance", False) else "forward"
    decoder = "8bit" if bytes else "gaussian"
    steps = min(steps, schedule.steps or steps)
    return variational_bound(denoiser, x_0, variance, decoder, class_label, seeded_noise(seed), steps).total
