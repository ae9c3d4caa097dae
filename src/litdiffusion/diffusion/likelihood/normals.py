"""Normal distributions with independent coordinates: divergence, density, and the probability of an 8-bit value.

All in nats, one number per coordinate, from logarithms of variances.
"""

import math

import torch
from torch import Tensor

HALF_BIN = 1 / 255
"""Half the distance of neighbouring 8-bit values ``k / 127.5 - 1``."""


def kl_divergence(difference: Tensor, log_ratio: Tensor, log_variance: Tensor) -> Tensor:
    """``KL(q || p) = (exp(-r) - 1 + r + difference² / variance) / 2``, shaped like ``difference``.

    ``difference`` is that of the means, ``r = log(variance of p / variance of q)``, ``log_variance`` that of p. It is
    written in differences, since between close levels p and q agree to many digits. 0 where p = q.
    """
    return 0.5 * (torch.expm1(-log_ratio) + log_ratio + difference**2 * (-log_variance).exp())


def log_density(difference: Tensor, log_variance: Tensor) -> Tensor:
    """``-(log(2 pi variance) + difference² / variance) / 2``, shaped like ``difference``, that from the mean."""
    return -0.5 * (math.log(2 * math.pi) + log_variance + difference**2 * (-log_variance).exp())


def log_probability_8bit(x: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """The logarithm of the mass that ``N(mean, variance)`` puts into the bin of an 8-bit value x, shaped like x.

    ``x = k / 127.5 - 1`` owns ``[x - 1/255, x + 1/255]``; the bins of -1 and 1 reach to infinity, so that the 256
    probabilities sum to 1. Finite however far x lies from the mean; tends to `log_density` + log(2/255) where the
    deviation is much wider than a bin.

    Source: Ho, Jain, Abbeel, "Denoising Diffusion Probabilistic Models", 2020, arXiv 2006.11239, equation 13.
    """
    inverse = (-0.5 * log_variance).exp()
    lower, upper = (x - HALF_BIN - mean) * inverse, (x + HALF_BIN - mean) * inverse
    # The same mass mirrored into the lower tail, where the logarithms of the two ends keep their digits.
    mirrored = lower + upper > 0
    low = torch.special.log_ndtr(torch.where(mirrored, -upper, lower))
    high = torch.special.log_ndtr(torch.where(mirrored, -lower, upper))
    share = (-torch.expm1(low - high)).clamp(min=torch.finfo(x.dtype).tiny)
    first, last = x < HALF_BIN - 1, x > 1 - HALF_BIN
    edge = torch.special.log_ndtr(torch.where(first, upper, -lower))
    return torch.where(first | last, edge, high + share.log())
