"""Normal distributions with independent coordinates: divergence, density, and the probability of an 8-bit value.

All are in nats, one number per coordinate, and take the logarithm of the variance.
"""

import math

import torch
from torch import Tensor

HALF_BIN = 1 / 255
"""Half the distance of neighbouring 8-bit values ``k / 127.5 - 1``."""


def kl_divergence(difference: Tensor, log_ratio: Tensor | float, log_variance: Tensor) -> Tensor:
    """``KL(q || p) = (exp(-r) - 1 + r + difference² / variance) / 2``, shaped like ``difference``.

    ``difference`` is that of the means, ``r = log(variance of p / variance of q)``, ``log_variance`` that of p. Written in
    differences, since the two agree to many digits between close levels. 0 where p = q.
    """
    r = torch.as_tensor(log_ratio, dtype=difference.dtype, device=difference.device)
    # A number keeps its float64 digits only as a number.
    inverse = (-log_variance).exp() if log_variance.ndim == 0 else (-log_variance).exp().to(difference)
    return 0.5 * (torch.expm1(-r) + r + difference**2 * inverse)


def log_density(difference: Tensor, log_variance: Tensor) -> Tensor:
    """``-(log(2 pi variance) + difference² / variance) / 2``, shaped like ``difference`` from the mean."""
    return -0.5 * (math.log(2 * math.pi) + log_variance + difference**2 * (-log_variance).exp())


def log_probability_8bit(x: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """The logarithm of the mass that ``N(mean, variance)`` puts into the bin of an 8-bit value x, shaped like x.

    ``x = k / 127.5 - 1`` owns ``[x - 1/255, x + 1/255]``; the bins of -1 and 1 reach to infinity, so that the 256
    probabilities sum to 1. Finite however far x lies from the mean; x beyond the edges counts as the edge.

    Source: Ho, Jain, Abbeel, "Denoising Diffusion Probabilistic Models", 2020, arXiv 2006.11239, equation 13.
    """
    deviations = (-0.5 * log_variance).exp()
    lower, upper = (x - HALF_BIN - mean) * deviations, (x + HALF_BIN - mean) * deviations
    # The same mass mirrored into the lower tail, where differences of log Φ lose no digits.
    mirrored = lower + upper > 0
    low, high = torch.where(mirrored, -upper, lower), torch.where(mirrored, -lower, upper)
    log_high, log_low = torch.special.log_ndtr(high), torch.special.log_ndtr(low)
    tiny = torch.finfo(x.dtype).tiny
    inside = log_high + (-torch.expm1(log_low - log_high)).clamp(min=tiny).log()
    at_low_edge, at_high_edge = x < HALF_BIN - 1, x > 1 - HALF_BIN
    edge = torch.special.log_ndtr(torch.where(at_low_edge, upper, -lower))
    return torch.where(at_low_edge | at_high_edge, edge, inside)
