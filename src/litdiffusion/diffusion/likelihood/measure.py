"""The negative log-likelihood of data, by the method that the process allows."""

from math import prod

from torch import Tensor

from litdiffusion.diffusion.denoisers.interface import AnyDenoiser
from litdiffusion.diffusion.levels import seeded_noise
from litdiffusion.diffusion.likelihood.bits import byte_nats, dequantised
from litdiffusion.diffusion.likelihood.bound import variational_bound
from litdiffusion.diffusion.likelihood.divergence import Divergence, Exact, Hutchinson
from litdiffusion.diffusion.likelihood.flow import flow_log_likelihood
from litdiffusion.diffusion.seeding import fold_seed

EXACT_UP_TO = 16
"""The largest number of coordinates whose divergence is computed exactly by default."""


def divergence_for(coordinates: int, probes: int | None, seed: int) -> Divergence:
    """`Exact` for few coordinates if ``probes`` is None, else `Hutchinson` with this number of probes (None: 1)."""
    if probes is None and coordinates <= EXACT_UP_TO:
        return Exact()
    return Hutchinson(probes or 1, seed=seed)


def flow_nats(
    denoiser: AnyDenoiser,
    x_0: Tensor,
    bytes: bool,
    divergence: Divergence,
    seed: int = 0,
    class_label: Tensor | None = None,
    rtol: float = 1e-5,
    atol: float = 1e-5,
) -> Tensor:
    """``-log p(x_0)`` (B,) in nats by the probability flow; for ``bytes`` an upper bound on their code length.

    p is the density at the cleanest training time, see `flow_log_likelihood`.
    """
    x = dequantised(x_0, seed) if bytes else x_0
    log_p = flow_log_likelihood(denoiser, x, class_label, divergence, rtol, atol).log_density
    return byte_nats(log_p, prod(x_0.shape[1:])) if bytes else -log_p


def quick_nats(
    denoiser: AnyDenoiser, x_0: Tensor, bytes: bool, steps: int, seed: int = 0, class_label: Tensor | None = None
) -> Tensor | None:
    """``-log p`` (B,) in nats from about ``steps`` network calls, accurate enough to follow a training.

    For chains, and for bytes in every process, it is the variational bound of a chain of ``steps`` levels with forward
    or learned variances, from one draw of noise; more levels give smaller values. For other data in continuous time it
    is the probability flow's value to the tolerances 1e-3. None for a single level, which has no likelihood.
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
    noise = seeded_noise(fold_seed(seed, "bound"))
    return variational_bound(denoiser, x_0, variance, decoder, class_label, noise, steps).total
