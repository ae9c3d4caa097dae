"""Normal distributions with independent coordinates: KL divergence, density, and the probability of an 8-bit value.

All results are in nats, one number per coordinate. Variances are given as logarithms.
"""

import math

import torch
from torch import Tensor

HALF_BIN = 1 / 255
"""Half the distance between neighbouring 8-bit values ``k / 127.5 - 1``."""


def kl_divergence(difference: Tensor, log_ratio: Tensor, log_variance: Tensor) -> Tensor:
    """``KL(q || p) = (exp(-r) - 1 + r + difference² / variance) / 2``, shaped like ``difference``.

    ``difference`` is the difference of the means, ``r = log_ratio = log(variance of p / variance of q)``, and
    ``log_variance`` belongs to p. 0 where p = q. Differences keep digits, since p and q are similar at close levels.
    """
    return 0.5 * (torch.expm1(-log_ratio) + log_ratio + difference**2 * (-log_variance).exp())


def log_density(difference: Tensor, log_variance: Tensor) -> Tensor:
    """``-(log(2 pi variance) + difference² / variance) / 2``, shaped like ``difference = x - mean``."""
    return -0.5 * (math.log(2 * math.pi) + log_variance + difference**2 * (-log_variance).exp())


def log_probability_8bit(x: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """The log probability of the bin of an 8-bit value x under ``N(mean, variance)``, shaped like x.

    The bin of ``x = k / 127.5 - 1`` is ``[x - 1/255, x + 1/255]``. The bins of -1 and 1 extend to infinity, so that the
    256 probabilities sum to 1. The result is finite at any distance from the mean. It tends to
    `log_density` + log(2/255) if the std is much larger than a bin.

    Source: Ho, Jain, Abbeel, "Denoising Diffusion Probabilistic Models", 2020, arXiv 2006.11239, equation 13.
    """
    inverse = (-0.5 * log_variance).exp()
    lower, upper = (x - HALF_BIN - mean) * inverse, (x + HALF_BIN - mean) * inverse
    # Bins above the mean are mirrored into the lower tail, where log_ndtr keeps its digits.
    mirrored = lower + upper > 0
    low = torch.special.log_ndtr(torch.where(mirrored, -upper, lower))
    high = torch.special.log_ndtr(torch.where(mirrored, -lower, upper))
    share = (-torch.expm1(low - high)).clamp(min=torch.finfo(x.dtype).tiny)
    first, last = x < HALF_BIN - 1, x > 1 - HALF_BIN
    edge = torch.special.log_ndtr(torch.where(first, upper, -lower))
    return torch.where(first | last, edge, high + share.log())
